"""python -m pivq_jax.edits edit|complete --pretrained=toon_faces [--set=hair=bun] [--hide=left]

  edit      write edits.png, a face with every value of every labelled factor; with one or more
            --set=FACTOR=VALUE, write edits_FACTOR_VALUE.png, test images with these values; with
            --input and --output, edit your own images instead
  complete  write completions_left.png, test images completed where a part is hidden (--hide)

    python -m pivq_jax.edits edit --pretrained=toon_faces --set=hair=bun --set=eyes=wide
    python -m pivq_jax.edits edit --pretrained=toon_faces --set=hair=bun --input=faces --output=bun
    python -m pivq_jax.edits complete --pretrained=toon_faces --hide=centre

Factors are those of the labels that the model, or its data set, has.
"""

import sys
from collections.abc import Sequence

import numpy as np
from absl import flags

from pivq_jax.commands.program import Command, Program
from pivq_jax.commands.task import Task, open_model, open_with_images
from pivq_jax.common import files
from pivq_jax.common.errors import InputError
from pivq_jax.edits import completion, editing
from pivq_jax.evaluation.session import Session
from pivq_jax.evaluation.stages import MOST_IN_GRID
from pivq_jax.inference import TrainedModel, names_of_copies, write_decoded

SHOWN = 24  # images that are completed


def edit(task: Task, input: str = "", output: str = "", set: Sequence[str] = ()) -> None:
    """Writes a grid of edited test images or, with an input, its images edited.

    `set` has the wanted values by factor, as in `hair=bun`.
    """
    changes = _changes(set)
    if not input:
        if output:
            raise InputError("--output is for the images of --input: give both, or neither")
        count = min(task.config.sample.count, MOST_IN_GRID)
        editing.check_edit(model := open_model(task), changes)
        editing.edit(_session(task, model), changes, count)
        return
    if not changes:
        raise InputError("--input needs what to change: give --set=FACTOR=VALUE")
    source = files.expanded(input)
    target = task.place(output, f"edited_{editing.name_of(changes)}")
    names = names_of_copies(source, target)
    model = open_model(task, writes=not output)
    editing.check_edit(model, changes)
    if model.labels is None:
        model = editing.learn_factors(_session(task, model), changes)
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
    completion.write_completions(session, hide, SHOWN)


def _session(task: Task, model: TrainedModel) -> Session:
    model, dataset = open_with_images(task, model)
    return Session(model, dataset, task.workdir, model.parents)


COMMANDS = {
    "edit": Command(edit, takes=("input", "output", "set")),
    "complete": Command(complete, takes=("hide",)),
}


def _define_flags() -> None:
    flags.DEFINE_multi_string(
        "set", [], "For edit: a factor and its wanted value, as in --set=hair=bun; may be repeated."
    )
    flags.DEFINE_string("input", None, "For edit: folder of images.")
    flags.DEFINE_string(
        "output", None, "For edit: folder to write; default <workdir>/edited_FACTOR_VALUE."
    )
    flags.DEFINE_enum(
        "hide",
        "left",
        completion.REGIONS,
        "For complete: what is hidden, a half, the centre, or half of all patches.",
    )


def run() -> None:
    """Runs the command."""
    name = "python -m pivq_jax.edits"
    Program(name, sys.modules[__name__], COMMANDS, _define_flags).run()


if __name__ == "__main__":
    run()
