"""Opening trained models, to use them or to start a run from them, and writing their images."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import as_path, expanded, local_path, read_object
from pivq_jax.common.hub import find_pretrained, is_published
from pivq_jax.common.parallel import make_mesh, print_once, replicated, to_first_device
from pivq_jax.common.pictures import grid, save_png
from pivq_jax.config.check import config_of_model, read_config, trained_differences
from pivq_jax.config.fields import BUILT_FROM, Config
from pivq_jax.data import Dataset
from pivq_jax.data.images import images_to_uint8
from pivq_jax.inference.saved_prior import PRIOR, load_prior
from pivq_jax.inference.trained_model import TrainedModel
from pivq_jax.interop.pretrained import read_pretrained
from pivq_jax.interop.safetensors_file import model_shapes, read_model
from pivq_jax.sampling import CodeSpace
from pivq_jax.training.build import dataset_from_config
from pivq_jax.training.checkpoints import Checkpoints
from pivq_jax.training.steps import CODEBOOK, Arrays


def load(workdir: str | Path, step: int | None = None) -> TrainedModel:
    """Loads the model of a finished or running training from its workdir, local or remote.

    The checkpoint is that of `step`, by default the newest readable one. Weights are on all
    devices. Raises InputError if the workdir or the checkpoint does not exist, or if the checkpoint
    is from before codebook initialization and has no codebook, which happens if a signal other
    than Ctrl-C ended the run.
    """
    workdir = as_path(str(workdir))
    origin = f"{workdir}/config.json"
    config = config_of_model(read_config(workdir), origin)
    mesh, shapes = make_mesh(), model_shapes(config, origin)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        state, progress = checkpoints.restore(
            {"step": jax.ShapeDtypeStruct((), jnp.int32), "ema_params": shapes}, mesh, step
        )
    step = int(state["step"])
    if step <= config.init_step and progress.get("codebook", "none") == "none":
        raise InputError(
            f"{workdir} is at step {step}, but the codebook is initialised at step"
            f" {config.init_step}: train on"
        )
    metrics = read_object(workdir / "metrics.json")
    measured_on = metrics.get("data")
    if metrics.get("step") != step or measured_on != progress.get("data", measured_on):
        metrics = {}  # of earlier weights, or of other images than those of the training
    params = state["ema_params"]
    codebook = to_first_device(params["quantizer"]["codebook"])
    prior = load_prior(workdir / PRIOR, CodeSpace.of(config), codebook, step)
    return TrainedModel(config, mesh, params, step, progress, metrics, None, prior)


def from_pretrained(where: str | Path) -> TrainedModel:
    """Loads a model that comes with this package, or one written by `TrainedModel.save_pretrained`.

    `where` is a directory, the name of a model in the package (`toon_faces`), or the id of a model
    on the Hugging Face hub, 'owner/name', tried in this order. Weights are on all devices; the
    model has parents, labels and a prior if they were published. Raises InputError if the model
    does not exist, cannot be downloaded, is of another format, or is damaged.
    """
    params, description, parents, labels, prior = read_pretrained(find_pretrained(where))
    mesh, config = make_mesh(), config_of_model(description["config"], str(where))
    params, prior = jax.device_put((params, prior), replicated(mesh))
    step, progress, metrics = (description[name] for name in ("step", "progress", "metrics"))
    return TrainedModel(config, mesh, params, step, progress, metrics, parents, prior, labels)


def warn_of_other_data(model: TrainedModel, dataset: Dataset) -> None:
    """Says so if a data set is not that of the model's training."""
    trained_on = model.progress.get("data", dataset.identity)
    if trained_on != dataset.identity:
        print_once(
            f"warning: these are not the images, splits and labels of the training ({trained_on}):"
            " results are of others, and some test images may have been trained on"
        )


def data_of(model: TrainedModel, path: str) -> Dataset:
    """The data of a run, which is at `path` if it has moved; warns of other data."""
    dataset = dataset_from_config(model.config.with_fields({"data.path": path} if path else {}))
    warn_of_other_data(model, dataset)
    return dataset


def save_grid(path: str | Path, images: jax.Array | np.ndarray, columns: int = 8) -> None:
    """Writes images in up to `columns` columns to one PNG file, local or remote; makes directories.

    Images are [M, H, W, 3], M at least 1: floating point in [-1, 1], as from `decode`, or uint8.
    Raises ValueError if their shape or type is wrong, or `columns` is not positive.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images are {images.dtype}: give floats in [-1, 1], or uint8")
    if columns < 1:
        raise ValueError(f"columns = {columns}: use at least 1")
    pixels = images if images.dtype == np.uint8 else images_to_uint8(images)
    save_png(path, grid(pixels, columns))


def initial_arrays(where: str, config: Config) -> Arrays:
    """Reads the parameters that fit a config, those of the same path and shape; says which do.

    `where` is a workdir, a published model as in `from_pretrained`, or a safetensors file.
    """
    params, source, step = _read(where)
    source_params, shapes = flatten_dict(params), flatten_dict(model_shapes(config))
    init_step = config.init_step
    taken, differing = {}, []
    for path in sorted(source_params.keys() | shapes.keys()):
        name = "/".join(path)
        there, here = (
            list(x[path].shape) if path in x else "none" for x in (source_params, shapes)
        )
        if there != here:
            differing.append(f"{name}: {there} there, {here} here")
        elif path == CODEBOOK and init_step:
            differing.append(
                f"{name}: k-means makes one at step {init_step} (--config.quantizer.init_at=0"
                " keeps this one and quantizes from the first step)"
            )
        else:
            taken[path] = np.asarray(source_params[path])
    built = tuple(f"{name} = " for name in BUILT_FROM)
    fields = trained_differences(source.to_dict(), config)
    differences = ", ".join(field for field in fields if field.startswith(built))
    if not taken:
        raise InputError(
            f"nothing in {where} fits this config (it has {differences or 'other arrays'}): choose"
            " the same, or leave --init_from out"
        )
    count, total = (sum(x.size for x in arrays.values()) for arrays in (taken, shapes))
    print_once(
        f"starting from {where}, step {step}: {len(taken)} of {len(shapes)} arrays are taken,"
        f" {count:,} of {total:,} parameters" + (f"; it has {differences}" if differences else "")
    )
    for line in differing:
        print_once(f"  not taken: {line}")
    return taken


def _read(where: str) -> tuple[Any, Config, int]:
    """The parameters, the config and the step of a model."""
    if where.endswith(".safetensors") or expanded(where).is_file():
        params, description = read_model(local_path(where))
        return params, config_of_model(description["config"], where), description["step"]
    workdir = as_path(where)
    is_run = workdir.is_dir() and not is_published(workdir)
    model = load(workdir) if is_run else from_pretrained(where)
    return model.params, model.config, model.step
