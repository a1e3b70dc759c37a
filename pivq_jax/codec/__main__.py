"""python -m pivq_jax.codec compress|decompress --pretrained=toon_faces --input=FROM --output=TO

  compress    write the codes of every image of the folder --input to the file --output: 13 bytes
              an image for 16 codes of 512, fewer with --code=prior
  decompress  decode the file --input to PNG files in the new folder --output

    python -m pivq_jax.codec compress --pretrained=toon_faces --input=faces --output=faces.pivq
    python -m pivq_jax.codec decompress --pretrained=toon_faces --input=faces.pivq --output=decoded

A file is read with the model that wrote it.
"""

import sys

from absl import flags

from pivq_jax.codec import folders
from pivq_jax.commands.program import Command, Program
from pivq_jax.commands.task import Task, open_model
from pivq_jax.common import files
from pivq_jax.common.parallel import print_once


def compress(task: Task, input: str, output: str, code: str = "fixed") -> None:
    """Writes the codes of all images of a folder to a file; see `folders.compress`."""
    source, target = files.local_path(input), files.as_path(output)
    model = open_model(task, writes=False)
    if task.published is None and model.step < (steps := model.config.train.steps):
        print_once(
            f"the model is at step {model.step} of {steps}: what is written now cannot be read"
            " after more training, unless these weights are kept with python -m pivq_jax.convert"
        )
    folders.compress(model, source, target, code)


def decompress(task: Task, input: str, output: str) -> None:
    """Decodes a file of codes to a folder of PNG files; see `folders.decompress`."""
    source, target = files.as_path(input), files.local_path(output)
    folders.decompress(open_model(task, writes=False), source, target)


COMMANDS = {
    "compress": Command(
        compress, takes=("input", "output", "code"), needs=("--input=FOLDER", "--output=FILE")
    ),
    "decompress": Command(
        decompress, takes=("input", "output"), needs=("--input=FILE", "--output=FOLDER")
    ),
}


def _define_flags() -> None:
    flags.DEFINE_string("input", None, "Folder of images to compress; file of codes to decompress.")
    flags.DEFINE_string("output", None, "File that compress writes; folder that decompress makes.")
    flags.DEFINE_enum(
        "code",
        "fixed",
        ("fixed", "prior"),
        "For compress. fixed: all images take equally many bytes; prior: fewer for sets of codes"
        " that the model's prior finds likely.",
    )


def run() -> None:
    """Runs the command."""
    name = "python -m pivq_jax.codec"
    Program(name, sys.modules[__name__], COMMANDS, _define_flags).run()


if __name__ == "__main__":
    run()
