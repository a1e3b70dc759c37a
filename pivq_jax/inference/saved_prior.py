"""Reading of the prior over sets of codes that was trained in a workdir; see `sampling.prior`."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.codes.space import CodeSpace
from pivq_jax.common.errors import InputError, brief
from pivq_jax.common.files import read_object
from pivq_jax.common.parallel import make_mesh
from pivq_jax.common.params import checksum
from pivq_jax.config.check import prior_settings
from pivq_jax.config.sections import PriorConfig
from pivq_jax.sampling.prior import Prior, build_prior, parameter_shapes
from pivq_jax.training.checkpoints import Checkpoints

PRIOR = "prior"  # directory of the prior in a workdir
DESCRIPTION = "prior.json"  # what the prior was trained on, beside its checkpoints


def load_prior(
    directory: Path, space: CodeSpace, codebook: jax.Array, model_step: int
) -> Prior | None:
    """Loads the prior with the best validation of a directory in which one is trained.

    None if there is none, or it is of another model or step, whose codes mean something else.
    Raises InputError if its description or its checkpoint is damaged.
    """
    saved = read_object(directory / DESCRIPTION)
    if saved.get("model_step") != model_step:
        return None
    try:
        if saved["codebook"] != checksum(codebook):
            return None
        settings = prior_settings({name: saved[name] for name in dict(PriorConfig())})
    except (KeyError, InputError) as error:
        raise InputError(
            f"{directory / DESCRIPTION} is damaged ({brief(error)}): delete {directory}"
        ) from error
    network = build_prior(space, settings)
    shapes = {
        "step": jax.ShapeDtypeStruct((), jnp.int32),
        "best": parameter_shapes(network),
        "best_bits": jax.ShapeDtypeStruct((), jnp.float32),
    }
    with Checkpoints(directory, read_only=True) as checkpoints:
        if checkpoints.latest_step() is None:
            return None
        state = restore_prior(checkpoints, shapes, directory)
    if not np.isfinite(float(state["best_bits"])):  # stopped before its first validation
        return None
    finished = int(state["step"]) >= settings.steps
    return Prior(network, state["best"], float(state["best_bits"]), finished)


def restore_prior(checkpoints: Checkpoints, wanted: Any, directory: Path) -> Any:
    """Restores arrays; an error says to delete the prior, as the run that it is of is whole."""
    try:
        return checkpoints.restore(wanted, make_mesh())[0]
    except InputError as error:
        raise InputError(
            f"the prior in {directory} cannot be read: see the lines above, and delete {directory}"
        ) from error
