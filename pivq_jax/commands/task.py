"""What a command is about: the config, the workdir and the model that its flags name."""

import dataclasses
import os
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from pivq_jax.common import files
from pivq_jax.common.errors import InputError
from pivq_jax.common.parallel import print_once
from pivq_jax.config.check import (
    check_config,
    check_workdir,
    config_of_model,
    read_config,
    trained_differences,
)
from pivq_jax.config.fields import BUILT_FROM, PATHS, Config
from pivq_jax.data import Dataset
from pivq_jax.inference import Decoded, TrainedModel
from pivq_jax.inference.opening import from_pretrained, load
from pivq_jax.training.build import dataset_from_config

__all__ = [
    "Task",
    "can_hold_out",
    "decoded_parents",
    "hold_out",
    "make_task",
    "open_data",
    "open_model",
    "open_with_images",
]

HELD_OUT = 200  # parents that stand for test images where a published model's data is missing


@dataclasses.dataclass(frozen=True)
class Task:
    """What all commands with a model are given."""

    config: Config
    workdir: Path
    published: TrainedModel | None = None  # stands for the model of the workdir
    config_given: bool = True  # otherwise the config is that of the run or the published model

    def place(self, output: str, name: str) -> Path:
        """Returns the output if there is one, else what has this name in the workdir."""
        return files.as_path(output) if output else self.workdir / name


def make_task(
    given: Mapping[str, Any] | None,
    where: str,
    pretrained: str | None,
    training: bool,
) -> Task:
    """Finds out what a command is about: config, workdir and published model, all checked.

    `given` is the config on the command line, if there is one, and `where` its workdir.
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
    return Task(config, workdir, published, config_given=given is not None)


def open_model(task: Task, writes: bool = True) -> TrainedModel:
    """Opens a task's model, with the fields of the task's config that do not define a model."""
    config, workdir, model = task.config, task.workdir, task.published
    if model is None:
        has_run = isinstance(workdir, Path) and (workdir / "config.json").exists()
        if writes and has_run and not os.access(workdir, os.W_OK):
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


def open_with_images(task: Task, model: TrainedModel) -> tuple[TrainedModel, Dataset]:
    """Returns a model with its data, that of the task's config.

    If the data of a published model is missing, its last parents are held out: they, decoded, stand
    for test images, which is said.
    """
    try:
        return model, open_data(task, model)
    except (InputError, ImportError) as error:
        if not can_hold_out(model):
            raise
        model, dataset = hold_out(model)
        print_once(
            f"{len(dataset.test)} training images, as they decode, stand for test images ({error})"
        )
        return model, dataset


def open_data(task: Task, model: TrainedModel) -> Dataset:
    """Returns the data of a task's config; that of a published model may not be there."""
    data = task.config.data
    if model.parents is not None and data.name == "image_folder" and not data.path:
        raise InputError("its folder is not published: give --config.data.path")
    return dataset_from_config(task.config)


def can_hold_out(model: TrainedModel) -> bool:
    """Whether a model has parents enough for `hold_out`."""
    return model.parents is not None and len(model.parents) >= 3


def hold_out(model: TrainedModel) -> tuple[TrainedModel, Dataset]:
    """Returns a published model without its last parents, and its parents, decoded, as its data:
    the last ones are the test images.
    """
    assert model.parents is not None
    count = min(HELD_OUT, len(model.parents) - 2)
    dataset = decoded_parents(model, count)
    labels = model.labels and model.labels._replace(values=model.labels.values[:-count])
    return dataclasses.replace(model, parents=model.parents[:-count], labels=labels), dataset


def decoded_parents(model: TrainedModel, held_out: int = 0) -> Dataset:
    """Returns the decoded parents of a published model, the last ones held out as test images."""
    codes, labels = model.parents, model.labels
    assert codes is not None
    count = len(codes) - held_out
    train = Decoded(model, codes[:count], labels and labels._replace(values=labels.values[:count]))
    test = Decoded(model, codes[count:], labels and labels._replace(values=labels.values[count:]))
    data, factors = model.config.data, dict(labels.factors) if labels else {}
    return Dataset(data.name, data.image_size, train, test, test, factors)
