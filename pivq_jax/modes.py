"""Implementations of the values of `--mode`."""

import dataclasses
import os
from collections.abc import Mapping
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pivq_jax.codec import folders
from pivq_jax.codec.names import check_names, png_names
from pivq_jax.common import files
from pivq_jax.common.errors import InputError
from pivq_jax.common.parallel import check_in_first_process, print_once
from pivq_jax.common.pictures import save_png
from pivq_jax.common.psnr import psnr
from pivq_jax.common.stopping import end_on_sigterm
from pivq_jax.config.check import (
    check_config,
    check_workdir,
    config_of_model,
    read_config,
    trained_differences,
)
from pivq_jax.config.fields import BUILT_FROM, PATHS, Config
from pivq_jax.data import Dataset
from pivq_jax.data.records import find_directory
from pivq_jax.data.tree import list_images
from pivq_jax.evaluation import completions, edits, stages
from pivq_jax.evaluation.evaluator import Evaluator
from pivq_jax.evaluation.figures import print_metrics
from pivq_jax.evaluation.report import write_report
from pivq_jax.evaluation.session import Session, check_weights
from pivq_jax.inference import Decoded, TrainedModel, decode_batched, describe_psnr, encode_split
from pivq_jax.inference.opening import from_pretrained, initial_arrays, load, warn_of_other_data
from pivq_jax.training import prior
from pivq_jax.training.build import dataset_from_config
from pivq_jax.training.checkpoints import check_place

HELD_OUT = 200  # parents that stand for test images where a published model's data is missing


@dataclasses.dataclass(frozen=True)
class Task:
    """What the command line gives to a mode, most of it flags of the same name."""

    config: Config
    workdir: Path
    published: TrainedModel | None = None  # stands for the model of the workdir
    init_from: str | None = None  # see `inference.opening.initial_arrays`
    tracker: str = ""  # see `training.logs.check_log`
    input: str = ""
    output: str = ""
    set: Mapping[str, str] = dataclasses.field(default_factory=dict)  # wanted value by factor
    hide: str = "left"  # one of `completions.REGIONS`
    code: str = "fixed"  # see `codec.folders.compress`
    prior: bool = False  # whether samples are drawn from the model's prior
    config_given: bool = True  # otherwise the config is that of the run or the published model
    address: str = "127.0.0.1"
    port: int = 0


def make_task(
    given: Mapping[str, Any] | None,
    where: str,
    pretrained: str | None,
    training: bool,
    **flags: Any,
) -> Task:
    """Finds out what a command is about: config, workdir and published model, all checked.

    `given` is the config on the command line, if there is one, and `where` its workdir. `flags` are
    those of modes.
    """
    published = None if pretrained is None else from_pretrained(pretrained)
    if given is not None:
        config = Config.from_dict(given)
    elif published is not None:
        config = published.config
    else:
        trained = files.as_path(where)
        if training and not (trained / "config.json").exists():
            raise InputError(f"{trained} holds no run: give --config to begin one")
        config = config_of_model(read_config(trained), str(trained))
    for name in PATHS:  # for commands in other folders
        place = attrgetter(name)(config)
        if place and not files.is_remote(place):
            config = config.with_fields({name: os.path.abspath(files.expanded(place))})
    if training or given is not None:
        check_config(config, training)
    where = where or (os.getcwd() if published else "")
    if not where:
        if Path(config.name).name != config.name or config.name in ("", ".."):
            raise InputError(
                f"name = {config.name!r} cannot be a folder in runs/: give --workdir, or another"
                " --config.name"
            )
        where = f"runs/{config.name}"
    workdir = files.as_path(where)
    return Task(config, workdir, published, config_given=given is not None, **flags)


# A function for each value of --mode follows, in the order of `main.MODES`.


def train(task: Task) -> None:
    """Trains (or continues), then evaluates, samples and interpolates."""
    # Packages of the extra `train`: those that are missing are reported before any work.
    import grain  # noqa: F401

    from pivq_jax.training import loop

    config = task.config
    check_weights(config, bool(config.evaluate.every))
    _check_outside(config, task.workdir)
    initial = None if task.init_from is None else partial(initial_arrays, task.init_from)
    dataset = loop.train(config, task.workdir, Evaluator(config), initial, task.tracker)
    end_on_sigterm()
    session = Session(_open_model(task), dataset, task.workdir)
    _evaluate(session)
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
    _evaluate(_open(task))


def sample(task: Task) -> None:
    """Writes new images, of pairs of training images or from the prior: a grid, or a file each."""
    count, target = task.config.sample.count, files.local_path(task.output) if task.output else None
    if target:
        check_in_first_process(lambda: files.check_new_folder(target, "--output"))
    elif count > stages.MOST_IN_GRID:
        raise InputError(
            f"sample.count = {count:,} images are more than the {stages.MOST_IN_GRID:,} of"
            " one picture: give --output=DIR for a file each"
        )
    session = _open_with_parents(task)
    if task.prior and session.model.prior is None:
        raise InputError("the model has no prior: train one with --mode=train_prior")
    if target:
        stages.write_samples(session, task.prior, target)
    elif task.prior:
        stages.sample_prior(session)
    else:
        stages.sample(session)


def interpolate(task: Task) -> None:
    """Writes a grid of paths between images."""
    stages.interpolate(_open_with_parents(task))


def edit(task: Task) -> None:
    """Writes a grid of edited test images or, with an input, its images edited."""
    if not task.input:
        if task.output:
            raise InputError("--output is for the images of --input: give both, or neither")
        count = min(task.config.sample.count, stages.MOST_IN_GRID)
        edits.check_edit(model := _open_model(task), task.set)
        edits.edit(_open_with_images(task, model), task.set, count)
        return
    if not task.set:
        raise InputError("--input needs what to change: give --set=FACTOR=VALUE")
    _write_images(task, f"edited_{edits.name_of(task.set)}")


def complete(task: Task) -> None:
    """Writes a grid of test images of which a part is hidden, completed."""
    session = _open_with_images(task, _open_model(task))
    completions.write_completions(session, task.hide, stages.SHOWN)


def reconstruct(task: Task) -> None:
    """Reconstructs all images of a folder to PNG files, and writes their codes to `codes.json`."""
    _write_images(task, "reconstructed")


def train_prior(task: Task) -> None:
    """Trains the prior over the sets of the training images and writes it to the workdir."""
    session, config = _open(task), task.config
    model = session.model
    if not model.space.distinct:
        raise InputError(f"the prior is one over sets, and {model.space.kind} codes are none")
    check_place(session.workdir)
    warn_of_other_data(model, session.whole)
    mirrored = " and their mirror images" if config.data.flip else ""
    print_once(f"encoding {len(session.pool):,} training images{mirrored}")
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
    print_once(
        f"the prior is in {session.workdir / prior.PRIOR}: {fitted.bits:.1f} bits a validation set"
    )


def compress(task: Task) -> None:
    """Writes the codes of all images of a folder to a file; see `codec.folders.compress`."""
    source, target = files.local_path(task.input), files.as_path(task.output)
    model = _open_model(task, writes=False)
    if task.published is None and model.step < (steps := model.config.train.steps):
        print_once(
            f"the model is at step {model.step} of {steps}: what is written now cannot be read"
            " after more training, unless these weights are kept with python -m pivq_jax.convert"
        )
    folders.compress(model, source, target, task.code)


def decompress(task: Task) -> None:
    """Decodes a file of codes to a folder of PNG files; see `codec.folders.decompress`."""
    source, target = files.as_path(task.input), files.local_path(task.output)
    model = _open_model(task, writes=False)
    folders.decompress(model, source, target)


def explore(task: Task) -> None:
    """Serves the explorer, a page to exchange the codes of images, until Ctrl-C."""
    try:
        from pivq_jax.explore.server import listen, make_server, url
    except ModuleNotFoundError as error:
        raise InputError(
            f"--mode=explore needs {error.name}: pip install '.[explore]' in a checkout of pivq_jax"
        ) from error
    from pivq_jax.explore.engine import Engine

    if jax.process_count() > 1:
        raise InputError("--mode=explore runs in one process: leave --distributed out")
    with listen(task.address, task.port) as listener:
        try:
            session = _open_with_images(task, _open_model(task, writes=False))
            decoded = isinstance(session.whole.test, Decoded)
            shown = "decoded training image" if decoded else "test image"
            engine = Engine(session.model, session.whole, shown)
            name = task.workdir if task.published is None else session.model.config.name
            print(f"explore {name} at {url(listener, task.address)} (Ctrl-C ends)", flush=True)
            make_server(engine, task.address).run(sockets=[listener])
        except KeyboardInterrupt:
            print("\nstopped")


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
    return Session(_open_model(task), dataset_from_config(task.config), task.workdir)


def _open_with_parents(task: Task) -> Session:
    """As `_open`, but if the model has parents, these, decoded, stand for all data; for sets of the
    prior without parents there is none.
    """
    model, data = _open_model(task, writes=not task.output), task.config.data
    if model.parents is not None:
        dataset = _of_parents(model)
    elif task.prior:
        dataset = Dataset(data.name, data.image_size, [], [], [], {})
    else:
        dataset = dataset_from_config(task.config)
    return Session(model, dataset, task.workdir, model.parents)


def _open_with_images(task: Task, model: TrainedModel) -> Session:
    """As `_open`, but if the data of a published model is missing, its last parents are held out:
    they, decoded, stand for test images, which is said.
    """
    data, parents = task.config.data, model.parents
    try:
        if parents is not None and data.name == "image_folder" and not data.path:
            raise InputError("its folder is not published: give --config.data.path")
        dataset = dataset_from_config(task.config)
    except (InputError, ImportError) as error:
        if parents is None or len(parents) < 3:
            raise
        count = min(HELD_OUT, len(parents) - 2)
        print_once(f"{count} training images, as they decode, stand for test images ({error})")
        dataset = _of_parents(model, count)
        labels = model.labels and model.labels._replace(values=model.labels.values[:-count])
        model = dataclasses.replace(model, parents=parents[:-count], labels=labels)
    return Session(model, dataset, task.workdir, model.parents)


def _of_parents(model: TrainedModel, held_out: int = 0) -> Dataset:
    """The decoded parents of a published model, the last ones held out as test images."""
    codes, labels = model.parents, model.labels
    assert codes is not None
    count = len(codes) - held_out
    train = Decoded(model, codes[:count], labels and labels._replace(values=labels.values[:count]))
    test = Decoded(model, codes[count:], labels and labels._replace(values=labels.values[count:]))
    data, factors = model.config.data, dict(labels.factors) if labels else {}
    return Dataset(data.name, data.image_size, train, test, test, factors)


def _open_model(task: Task, writes: bool = True) -> TrainedModel:
    """Opens a task's model, with the fields of the task's config that do not define a model."""
    config, workdir, model = task.config, task.workdir, task.published
    if model is None:
        held = isinstance(workdir, Path) and (workdir / "config.json").exists()
        if writes and held and not os.access(workdir, os.W_OK):
            raise InputError(
                f"{workdir} cannot be written: publish its model elsewhere (python -m"
                f" pivq_jax.convert --from={workdir} --to=DIR), and use that with --pretrained=DIR"
            )
        if task.config_given:
            check_workdir(config, workdir, writes)
        else:
            files.check_directory(workdir, "--workdir", writes)
        model = load(workdir)
    else:
        # How it was trained does not matter any more.
        own = model.config.with_fields({"data.group": config.data.group})  # it is not published
        others = trained_differences(own.to_dict(), config)
        if others := [each for each in others if each.startswith(("data.", *BUILT_FROM))]:
            raise InputError(
                f"the published model is of another config, with {', '.join(others)}: leave out"
                " --config and such fields, or give the same"
            )
        if writes:
            files.check_directory(workdir, "--workdir")
            if (workdir / "checkpoints").exists():
                raise InputError(
                    f"{workdir} holds a run, whose results would be replaced: choose another"
                    " --workdir"
                )
    fields = {name: config[name] for name in ("seed", "loss", "evaluate", "sample")}
    return dataclasses.replace(model, config=dataclasses.replace(model.config, **fields))


def _evaluate(session: Session) -> None:
    model, workdir = session.model, session.workdir
    print_once(f"evaluating step {model.step} on {len(session.dataset.test):,} test images")
    if model.progress.get("codebook") == "fitted":
        start = model.config.quantizer.init_step
        print_once(f"its codebook is fitted to its latents; it is trained from step {start} on")
    warn_of_other_data(model, session.whole)
    metrics = write_report(session)
    if jax.process_index() == 0:
        print_metrics(metrics)
    print_once(
        f"open {workdir / 'report' / 'index.html'}; all figures are in {workdir / 'metrics.json'}"
    )


def _write_images(task: Task, folder: str) -> None:
    """Writes the images of the input, changed if asked for, to the output or else to `folder`.

    Files that cannot be read are reported and skipped.
    """
    source, changes = files.expanded(task.input), task.set
    target = files.as_path(task.output) if task.output else task.workdir / folder
    files.check_apart(source, target, "--input")
    inputs = [Path(file).as_posix() for file in list_images(source)]
    check_names(inputs)
    names = dict(zip(inputs, png_names(inputs), strict=True))
    files.check_lengths(names.values(), "give the image a shorter one")
    check_in_first_process(lambda: files.check_no_others(target, {*names.values()}))
    model = _open_model(task, writes=not task.output)
    if changes:
        edits.check_edit(model, changes)
        if model.labels is None:
            model = edits.learn_factors(_open_with_images(task, model), changes)
    writes, psnrs = jax.process_index() == 0, []
    codes: dict[str, np.ndarray] = {}
    doing = "editing" if changes else "reconstructing"
    for images, encoded in folders.encoded_images(model, source, inputs, doing):
        if changes:
            encoded = np.asarray(model.edit(encoded, **changes))
        decoded = decode_batched(model, encoded)
        if not changes:
            psnrs.append(psnr(decoded, np.stack([*images.values()]), 255.0))
        if writes and not codes:  # a killed command must not leave old codes beside new images
            (target / "codes.json").unlink(missing_ok=True)
        encoded = encoded.astype(model.space.smallest_dtype)
        for file, image, row in zip(images, decoded, encoded, strict=True):
            if writes:
                save_png(target / names[file], image)
            codes[file] = row
    if writes:
        for file in names.keys() - codes.keys():  # skipped: an earlier image may be there
            (target / names[file]).unlink(missing_ok=True)
        files.write_atomically(target / "codes.json", files.json_rows(codes))
    print_once(f"{len(codes):,} images and codes.json in {target}")
    if not changes:
        for line in describe_psnr(model, np.concatenate(psnrs)):
            print_once(line)
