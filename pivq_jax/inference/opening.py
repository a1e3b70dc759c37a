"""Opening trained models, of workdirs and published ones, and writing their images."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import as_path, read_object
from pivq_jax.common.parallel import make_mesh, own_copy, replicated
from pivq_jax.common.pictures import grid, magnification, save_png
from pivq_jax.config.check import read_config
from pivq_jax.data.images import images_to_uint8
from pivq_jax.inference.trained_model import TrainedModel
from pivq_jax.interop.pretrained import read_pretrained
from pivq_jax.interop.safetensors_file import config_of_model, model_shapes
from pivq_jax.sampling import CodeSpace
from pivq_jax.training.checkpoints import Checkpoints
from pivq_jax.training.prior import PRIOR, load_prior


def load(workdir: str | Path, step: int | None = None) -> TrainedModel:
    """Loads the model of a finished or running training from its workdir, local or remote.

    The checkpoint is that of `step`, by default the newest readable one. Weights are on all
    devices. Raises InputError if the workdir does not exist, has no such checkpoint, or this one is
    from before the codebook's start and contains none, as it was written by an earlier version or
    after a signal other than Ctrl-C.
    """
    workdir = as_path(str(workdir))
    origin = f"{workdir}/config.json"
    config = config_of_model(read_config(workdir), origin)
    mesh, shapes = make_mesh(), model_shapes(config, origin)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        state, progress = checkpoints.restore(
            {"step": jax.ShapeDtypeStruct((), jnp.int32), "ema_params": shapes}, mesh, step
        )
    progress.pop("data", None)  # the identity of the training data is only needed to resume
    step = int(state["step"])
    if step <= config.quantizer.init_step and progress.get("codebook", "none") == "none":
        raise InputError(
            f"{workdir} is at step {step}, but the codebook is initialised at step"
            f" {config.quantizer.init_step}: train on"
        )
    metrics = read_object(workdir / "metrics.json")
    if metrics.get("step") != step:  # of earlier weights
        metrics = {}
    params = state["ema_params"]
    codebook = own_copy(params["quantizer"]["codebook"])
    prior = load_prior(workdir / PRIOR, CodeSpace.of(config), codebook, step)
    return TrainedModel(config, mesh, params, step, progress, metrics, None, prior)


def from_pretrained(where: str | Path) -> TrainedModel:
    """Loads a model that this package brings, or one written by `TrainedModel.save_pretrained`.

    `where` is a directory, the name of a model in the package (`toon_faces`), or the id of a model
    on the Hugging Face hub, 'owner/name', in this order. Weights are on all devices; parents, their
    labels and a prior are there if they were published. Raises InputError if the model does not
    exist, cannot be downloaded, is of another format, or is damaged.
    """
    params, description, parents, labels, prior = read_pretrained(where)
    mesh, config = make_mesh(), config_of_model(description["config"], str(where))
    params = jax.device_put(params, replicated(mesh))
    if prior is not None:  # once, not whenever it draws
        prior = prior._replace(params=jax.device_put(prior.params, replicated(mesh)))
    step, progress, metrics = (description[name] for name in ("step", "progress", "metrics"))
    return TrainedModel(config, mesh, params, step, progress, metrics, parents, prior, labels)


def save_grid(path: str | Path, images: jax.Array | np.ndarray, columns: int = 8) -> None:
    """Writes images as one PNG file, local or remote, with so many columns; makes directories.

    Images are [M, H, W, 3], M at least 1: floating point in [-1, 1], as from `decode`, or uint8.
    Raises ValueError if their shape is wrong, or `columns` is not positive.
    """
    images = np.asarray(images)
    pixels = images if images.dtype == np.uint8 else images_to_uint8(images)
    scale = magnification(images.shape[1]) if images.ndim == 4 and images.size else 1
    save_png(path, grid(pixels, columns, scale))
