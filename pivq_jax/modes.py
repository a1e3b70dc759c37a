"""Implementations of the values of `--mode`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

from pivq_jax.commands.task import Task, decoded_parents, open_model, open_with_images
from pivq_jax.common import files
from pivq_jax.common.errors import InputError
from pivq_jax.common.parallel import check_in_first_process, say
from pivq_jax.common.stopping import end_on_sigterm
from pivq_jax.config.fields import Config
from pivq_jax.data import Dataset
from pivq_jax.data.records import find_directory
from pivq_jax.evaluation import completions, edits, stages
from pivq_jax.evaluation.evaluator import Evaluator
from pivq_jax.evaluation.figures import print_metrics
from pivq_jax.evaluation.report import write_report
from pivq_jax.evaluation.session import Session, check_weights
from pivq_jax.inference import TrainedModel, encode_split, names_of_copies, write_decoded
from pivq_jax.inference.opening import initial_arrays, warn_of_other_data
from pivq_jax.training import prior
from pivq_jax.training.build import dataset_from_config
from pivq_jax.training.checkpoints import check_place


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
    _evaluate(session)
    stages.sample(session)
    stages.interpolate(session)
    if "smoke" in config.name.split("_"):
        say(
            f"{config.name} is a check that everything runs, not a model: its pictures are noise;"
            " leave :smoke out to train"
        )


def evaluate(task: Task) -> None:
    """Writes `metrics.json` and `report/` for the test split."""
    check_weights(task.config)
    _evaluate(_open(task))


def sample(task: Task, prior: bool = False, output: str = "") -> None:
    """Writes new images, of pairs of training images or from the prior: a grid, or a file each."""
    count, target = task.config.sample.count, files.local_path(output) if output else None
    if target:
        check_in_first_process(lambda: files.check_new_folder(target, "--output"))
    elif count > stages.MOST_IN_GRID:
        raise InputError(
            f"sample.count = {count:,} images are more than the {stages.MOST_IN_GRID:,} of"
            " one picture: give --output=DIR for a file each"
        )
    session = _open_with_parents(task, prior, writes=not output)
    if prior and session.model.prior is None:
        raise InputError("the model has no prior: train one with --mode=train_prior")
    if target:
        stages.write_samples(session, prior, target)
    elif prior:
        stages.sample_prior(session)
    else:
        stages.sample(session)


def interpolate(task: Task) -> None:
    """Writes a grid of paths between images."""
    stages.interpolate(_open_with_parents(task))


def edit(task: Task, input: str = "", output: str = "", set: Sequence[str] = ()) -> None:
    """Writes a grid of edited test images or, with an input, its images edited.

    `set` has the wanted values by factor, as in `hair=bun`.
    """
    changes = _changes(set)
    if not input:
        if output:
            raise InputError("--output is for the images of --input: give both, or neither")
        count = min(task.config.sample.count, stages.MOST_IN_GRID)
        edits.check_edit(model := open_model(task), changes)
        edits.edit(_session(task, model), changes, count)
        return
    if not changes:
        raise InputError("--input needs what to change: give --set=FACTOR=VALUE")
    source = files.expanded(input)
    target = _place(task, output, f"edited_{edits.name_of(changes)}")
    names = names_of_copies(source, target)
    model = open_model(task, writes=not output)
    edits.check_edit(model, changes)
    if model.labels is None:
        model = edits.learn_factors(_session(task, model), changes)
    write_decoded(
        model, source, target, names, lambda codes: np.asarray(model.edit(codes, **changes))
    )


def _changes(given: Sequence[str]) -> dict[str, str]:
    """The wanted value by factor of flags such as --set=hair=bun."""
    changes: dict[str, str] = {}
    for change in given:
        name, equals, value = change.partition("=")
        if not name or not equals or name in changes:
            raise InputError(f"--set={change}: give each factor once, as in --set=hair=bun")
        changes[name] = value
    return changes


def complete(task: Task, hide: str = "left") -> None:
    """Writes a grid of test images of which a part is hidden, completed."""
    session = _session(task, open_model(task))
    completions.write_completions(session, hide, stages.SHOWN)


def _session(task: Task, model: TrainedModel) -> Session:
    model, dataset = open_with_images(task, model)
    return Session(model, dataset, task.workdir, model.parents)


def reconstruct(task: Task, input: str, output: str = "") -> None:
    """Reconstructs all images of a folder to PNG files, and writes their codes to `codes.json`."""
    source, target = files.expanded(input), _place(task, output, "reconstructed")
    names = names_of_copies(source, target)
    write_decoded(open_model(task, writes=not output), source, target, names)


def _place(task: Task, output: str, name: str) -> Path:
    return files.as_path(output) if output else task.workdir / name


def train_prior(task: Task) -> None:
    """Trains the prior over the sets of the training images and writes it to the workdir."""
    session, config = _open(task), task.config
    model = session.model
    if not model.space.distinct:
        raise InputError(f"the prior is one over sets, and {model.space.kind} codes are none")
    check_place(session.workdir)
    warn_of_other_data(model, session.whole)
    mirrored = " and their mirror images" if config.data.flip else ""
    say(f"encoding {len(session.pool):,} training images{mirrored}")
    fitted = prior.train_prior(
        config.prior,
        model.space,
        model.codebook,
        session.prior_sets,
        encode_split(model, session.dataset.validation),
        directory=session.workdir / prior.PRIOR,
        seed=config.seed,
        model_step=model.step,
        data=session.dataset.identity,
    )
    say(f"the prior is in {session.workdir / prior.PRIOR}: {fitted.bits:.1f} bits a validation set")


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


def _open_with_parents(task: Task, prior: bool = False, writes: bool = True) -> Session:
    """As `_open`, but if the model has parents, these, decoded, stand for all data; for sets of the
    prior without parents there is none.
    """
    model, data = open_model(task, writes), task.config.data
    if model.parents is not None:
        dataset = decoded_parents(model)
    elif prior:
        dataset = Dataset(data.name, data.image_size, [], [], [], {})
    else:
        dataset = dataset_from_config(task.config)
    return Session(model, dataset, task.workdir, model.parents)


def _evaluate(session: Session) -> None:
    model, workdir = session.model, session.workdir
    say(f"evaluating step {model.step} on {len(session.dataset.test):,} test images")
    if model.progress.get("codebook") == "fitted":
        start = model.config.init_step
        say(f"its codebook is fitted to its latents; it is trained from step {start} on")
    warn_of_other_data(model, session.whole)
    metrics = write_report(session)
    if jax.process_index() == 0:
        print_metrics(metrics)
    say(f"open {workdir / 'report' / 'index.html'}; all figures are in {workdir / 'metrics.json'}")
