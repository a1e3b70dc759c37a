"""The prior in a workdir. Reading it needs neither the optimizer nor the data."""

from pathlib import Path

import jax
import jax.numpy as jnp

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import read_object
from pivq_jax.common.parallel import make_mesh
from pivq_jax.config.sections import PriorConfig
from pivq_jax.sampling.prior import Prior, build_prior, parameter_shapes
from pivq_jax.sampling.space import CodeSpace
from pivq_jax.training.checkpoints import Checkpoints

PRIOR = "prior"  # directory of the prior in a workdir
DESCRIPTION = "prior.json"  # what the prior was trained on, beside its checkpoints


def load_prior(
    directory: Path, space: CodeSpace, codebook: jax.Array, model_step: int
) -> Prior | None:
    """Loads the prior with the best validation of a directory given to `train_prior`.

    None if there is none, or it is of another step of the model, whose codes mean something else.
    """
    held = read_object(directory / DESCRIPTION)
    if held.get("model_step") != model_step:
        return None
    try:
        settings = PriorConfig(**{name: held[name] for name in dict(PriorConfig())})
        network = build_prior(space, codebook, settings.width, settings.depth, settings.heads)
    except KeyError as error:
        raise InputError(f"{directory / DESCRIPTION} is damaged: delete {directory}") from error
    wanted = {
        "step": jax.ShapeDtypeStruct((), jnp.int32),
        "best": parameter_shapes(network, space.num_codes),
        "best_bits": jax.ShapeDtypeStruct((), jnp.float32),
    }
    with Checkpoints(directory, read_only=True) as checkpoints:
        if checkpoints.latest_step() is None:
            return None
        state, _ = checkpoints.restore(wanted, make_mesh())
    finished = int(state["step"]) >= settings.steps
    return Prior(network, state["best"], float(state["best_bits"]), finished)
