"""The weights from which a new run starts, in place of random ones."""

from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import as_path, expanded, local_path
from pivq_jax.common.parallel import say
from pivq_jax.config.check import trained_differences
from pivq_jax.config.fields import BUILT_FROM, Config
from pivq_jax.inference.opening import from_pretrained, load
from pivq_jax.interop.pretrained import WEIGHTS
from pivq_jax.interop.safetensors_file import config_of_model, model_shapes, read_model
from pivq_jax.training.steps import CODEBOOK, Arrays


def initial_arrays(where: str, config: Config) -> Arrays:
    """Reads the parameters that fit a config, those of the same path and shape; says which do.

    `where` is a workdir, a published model as in `from_pretrained`, or a safetensors file.
    """
    params, source, step = _read(where)
    held, wanted = flatten_dict(params), flatten_dict(model_shapes(config))
    init_step = config.quantizer.init_step
    taken, left = {}, []
    for path in sorted(held.keys() | wanted.keys()):
        name = "/".join(path)
        there, here = (list(x[path].shape) if path in x else "none" for x in (held, wanted))
        if there != here:
            left.append(f"{name}: {there} there, {here} here")
        elif path == CODEBOOK and init_step:
            left.append(
                f"{name}: k-means makes one at step {init_step} (--config.quantizer.init_step=0"
                " keeps this one and quantizes from the first step)"
            )
        else:
            taken[path] = np.asarray(held[path])
    built = tuple(f"{section}.{name} = " for section, names in BUILT_FROM.items() for name in names)
    fields = trained_differences(source.to_dict(), config)
    differences = ", ".join(field for field in fields if field.startswith(built))
    if not taken:
        raise InputError(
            f"nothing in {where} fits this config (it has {differences or 'other arrays'}): choose"
            " the same, or leave --init_from out"
        )
    count, total = (sum(x.size for x in arrays.values()) for arrays in (taken, wanted))
    say(
        f"starting from {where}, step {step}: {len(taken)} of {len(wanted)} arrays are taken,"
        f" {count:,} of {total:,} parameters" + (f"; it has {differences}" if differences else "")
    )
    for line in left:
        say(f"  not taken: {line}")
    return taken


def _read(where: str) -> tuple[Any, Config, int]:
    """The parameters, the config and the step of a model."""
    if where.endswith(".safetensors") or expanded(where).is_file():
        params, description = read_model(local_path(where))
        return params, config_of_model(description["config"], where), description["step"]
    workdir = as_path(where)
    is_run = workdir.is_dir() and not (workdir / WEIGHTS).exists()
    model = load(workdir) if is_run else from_pretrained(where)
    return model.params, model.config, model.step
