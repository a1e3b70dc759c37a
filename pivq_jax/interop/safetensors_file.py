"""Weights in safetensors files with PyTorch's names, and a description of the model as metadata.

The description is that of `config.description`. Pickled files are not supported, since opening one
may execute code in it.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.common.errors import InputError, listed
from pivq_jax.common.params import Params
from pivq_jax.common.weights import pack_arrays, read_header, read_safetensors
from pivq_jax.config.check import check_config
from pivq_jax.config.description import FORMAT_VERSION, KEY, check_description
from pivq_jax.config.fields import Config
from pivq_jax.config.sections import ModelConfig
from pivq_jax.interop.weights import check_state_dict, from_torch, to_torch
from pivq_jax.model.pivq import PIVQ


def pack_model(params: Params, description: dict[str, Any]) -> bytes:
    """Returns the content of a file with parameters and their description.

    Raises ValueError if the description contains NaN or infinity.
    """
    description = {"format_version": FORMAT_VERSION, **description}
    metadata = {"format": "pt", KEY: json.dumps(description, allow_nan=False)}
    return pack_arrays(to_torch(params), metadata)


def read_model(path: Path) -> tuple[Params, dict[str, Any]]:
    """Reads and checks parameters, as NumPy arrays that are finite, and their description."""
    if path.suffix != ".safetensors":
        raise InputError(
            f"{path} is not named *.safetensors, the one format that is read: in PyTorch, write it"
            " with safetensors.torch.save_file"
        )
    remedy = "give a file of pivq_jax.convert or save_pretrained"
    header, metadata = read_header(path, remedy)
    description, config = check_description(metadata.get(KEY, ""), path)
    shapes = model_shapes(config, str(path))
    check_state_dict(header, shapes, str(path))  # before what may be larger than the memory is read
    arrays = read_safetensors(path, remedy)
    params = from_torch(arrays, shapes, str(path))
    if broken := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise InputError(f"{path} holds NaN or infinity in {listed(broken, ', ')}")
    return params, description


def config_of_run(description: dict[str, Any], path: Path) -> Config:
    """Returns the config of a file's description for a run: with all fields, that go together."""
    try:
        config = Config.from_dict(description["config"])
        check_config(config, training=False)
        return config
    except InputError as error:  # fields of another version
        raise InputError(f"the config in {path} is not that of a run, whole: {error}") from error


def model_shapes(config: Config, origin: str = "config") -> Params:
    """Computes the shapes and dtypes of the parameters of a config's model.

    Returns a tree of `jax.ShapeDtypeStruct`. Raises InputError if the config describes no model;
    the message names the place of the config, `origin`.
    """
    kind = config.quantizer.kind
    # Nearest entries have the same parameters, and no matching to trace.
    kind = "nearest" if kind == "matching" else kind
    try:
        shapes = _shapes(config.model, config.data.image_size, config.quantizer.codebook_size, kind)
        return jax.tree.map(lambda leaf: leaf, shapes)  # which the caller may change
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"the config in {origin} describes no model: {error}") from error


@functools.lru_cache
def _shapes(model: ModelConfig, image_size: int, codebook_size: int, kind: str) -> Params:
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    # One block of each stack is traced, as the others have its shapes: hundreds take half a minute.
    set_depth = min(model.set_depth, 1)
    traced = dataclasses.replace(model, encoder_depth=1, set_depth=set_depth, decoder_depth=1)
    network = PIVQ(traced, image_size, codebook_size, kind)
    params = jax.eval_shape(network.init, jax.random.key(0), images)["params"]
    for part, stack, depth in (
        ("encoder", "block", model.encoder_depth),
        ("decoder", "set_block", model.set_depth),
        ("decoder", "block", model.decoder_depth),
    ):
        for i in range(1, depth if f"{stack}_0" in params[part] else 0):
            params[part][f"{stack}_{i}"] = params[part][f"{stack}_0"]
    return params
