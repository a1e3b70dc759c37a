"""Implementations of the values of `--mode`."""

from functools import partial
from pathlib import Path

from pivq_jax.commands.task import Task, decoded_parents, open_model
from pivq_jax.common import files
from pivq_jax.common.errors import InputError
from pivq_jax.common.parallel import print_once
from pivq_jax.common.stopping import end_on_sigterm
from pivq_jax.config.fields import Config
from pivq_jax.data.records import find_directory
from pivq_jax.evaluation import stages
from pivq_jax.evaluation.evaluator import Evaluator
from pivq_jax.evaluation.report import evaluate_model
from pivq_jax.evaluation.session import Session, check_weights
from pivq_jax.inference import names_of_copies, write_decoded
from pivq_jax.inference.opening import initial_arrays
from pivq_jax.training.build import dataset_from_config


def train(task: Task, init_from: str | None = None, tracker: str = "") -> None:
    """Trains (or continues), then evaluates, samples and interpolates.

    `init_from` is as in `inference.opening.initial_arrays`, `tracker` as in
    `training.logs.check_log`.
    """
    # Packages of the extra `train`: those that are missing are reported before any work.
    import grain  # noqa: F401

    from pivq_jax.training import loop

    config = task.config
    check_weights(config, bool(config.evaluate.every))
    _check_outside(config, task.workdir)
    initial = None if init_from is None else partial(initial_arrays, init_from)
    dataset = loop.train(config, task.workdir, Evaluator(config), initial, tracker)
    end_on_sigterm()
    session = Session(open_model(task), dataset, task.workdir)
    evaluate_model(session)
    stages.sample(session)
    stages.interpolate(session)
    if "smoke" in config.name.split("_"):
        print_once(
            f"{config.name} is a check that everything runs, not a model: its pictures are noise;"
            " leave :smoke out to train"
        )


def evaluate(task: Task) -> None:
    """Writes `metrics.json` and `report/` for the test split."""
    check_weights(task.config)
    evaluate_model(_open(task))


def sample(task: Task, output: str = "") -> None:
    """Writes new images of pairs of training images: a grid, or a file each."""
    target = stages.folder_for_samples(task.config.sample.count, output)
    session = _open_with_parents(task, writes=not output)
    if target:
        stages.write_samples(session, target, stages.recombined_codes)
    else:
        stages.sample(session)


def interpolate(task: Task) -> None:
    """Writes a grid of paths between images."""
    stages.interpolate(_open_with_parents(task))


def reconstruct(task: Task, input: str, output: str = "") -> None:
    """Reconstructs all images of a folder to PNG files, and writes their codes to `codes.json`."""
    source, target = files.expanded(input), task.place(output, "reconstructed")
    names = names_of_copies(source, target)
    write_decoded(open_model(task, writes=not output), source, target, names)


def _check_outside(config: Config, workdir: Path) -> None:
    """Refuses a workdir within a folder of images, which would get the pictures of the run."""
    data, path = config.data, config.data.path
    if data.name != "image_folder" or not path or files.is_remote(path) or files.is_remote(workdir):
        return
    folder, place = files.resolved(files.expanded(path)), files.resolved(workdir)
    if not place.is_relative_to(folder) or find_directory(folder, data.name, data.image_size):
        return
    if not any(part.startswith(".") for part in place.relative_to(folder).parts):  # no hidden one
        raise InputError(
            f"{workdir} is within the images, {path}, and its pictures would be some of them: give"
            " a --workdir elsewhere"
        )


def _open(task: Task) -> Session:
    """Opens the model of a task with the data and settings of its config."""
    return Session(open_model(task), dataset_from_config(task.config), task.workdir)


def _open_with_parents(task: Task, writes: bool = True) -> Session:
    """As `_open`, but if the model has parents, these, decoded, stand for all data."""
    model = open_model(task, writes)
    parents = model.parents is not None
    dataset = decoded_parents(model) if parents else dataset_from_config(task.config)
    return Session(model, dataset, task.workdir, model.parents)
