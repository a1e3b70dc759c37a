"""Prepares a data set for training from its official files.

    python -m pivq_jax.data.prepare --dataset=celeba --source=~/celeba --size=128
    python -m pivq_jax.main --config=configs/celeba.py

Contents of --source:
  celeba        img_align_celeba (folder or .zip), list_attr_celeba.txt, list_eval_partition.txt
  celeba_hq     CelebA-HQ-img, CelebA-HQ-to-CelebA-mapping.txt, CelebAMask-HQ-attribute-anno.txt
                and CelebA's list_eval_partition.txt
  ffhq          images1024x1024 or thumbnails128x128
  lfw           lfw, lfw-funneled or lfw-deepfunneled; no person is in two splits
  image_folder  any directory tree of aligned images; --attributes=FILE.csv adds labels,
                --group='(.*)_[0-9]+' keeps NAME_1.jpg and NAME_2.jpg in one split

The central square of each image is resized (Lanczos) and stored as PNG. Images that cannot be read
are reported and skipped; if they are more than 1 %, the command fails. The command may be
interrupted at any time; if it is run again, it continues and produces the same bytes.
"""

import argparse
import dataclasses
import hashlib
import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pivq_jax.common.command_line import CommandParser, resumable_exit_code
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import expanded
from pivq_jax.data import layouts, records, tree
from pivq_jax.data.builder import build, default_data_dir, usable_cores
from pivq_jax.data.image_folder import list_folder
from pivq_jax.data.images import readable_name

# The config for a data set, and the size of its images; `image_folder` is for any size that its
# patches of 8 pixels divide.
_CONFIGS = {
    "celeba": ("celeba", 128),
    "celeba_hq": ("celeba_hq", 256),
    "ffhq": ("ffhq", 256),
    "lfw": ("faces", 64),
    "image_folder": ("image_folder", 8),
}


def prepare_dataset(
    name: str,
    source: Path,
    image_size: int,
    *,
    output: Path,
    crop: int = 0,
    attributes: Path | None = None,
    group: str = "",
    workers: int = 1,
) -> dict[str, Any]:
    """Prepares a data set in `{output}/{name}/{image_size}px`; returns its `prepared.json`.

    `crop` is the side of the central square that is resized, in pixels; 0 for the largest square.
    """
    if image_size < 8:
        raise InputError(f"--size is {image_size}: it must be at least 8")
    if workers < 1:
        raise InputError(f"--workers is {workers}: it must be at least 1")
    stamps = ""
    if name == "image_folder":
        files = tree.list_files(tree.existing_directory(source))
        listing = list_folder(source, attributes, group, files)
        listed = sorted((e.file, e.stamp) for part in listing.splits.values() for e in part)
        stamps = hashlib.sha256(os.fsencode(repr(listed))).hexdigest()[:16]
    elif attributes is not None:
        raise InputError(f"--attributes is for image_folder: {name} has its own")
    elif group:
        raise InputError(f"--group is for image_folder: {name} has splits of its own")
    else:  # every copy of these has the same images, so no stamps are needed
        listing = layouts.READERS[name](source)
        files = tree.list_files(listing.root) if listing.root.is_dir() else {}  # else an archive
    _check_sizes(name, image_size, crop, listing)

    plan = layouts.plan_of_files(name, listing, image_size, crop, group)
    expected = {"group": "", **plan.origin}
    origin = plan.origin | ({"stamps": stamps} if stamps else {})
    check = partial(tree.check_unchanged, listing.root, files) if files else plan.check
    plan = dataclasses.replace(plan, max_skipped=0.01, origin=origin, check=check)
    target = records.set_directory(output, name, image_size)
    manifest = build(target, lambda: plan, workers=workers)
    if differing := [key for key, value in expected.items() if manifest.get(key, "") != value]:
        raise InputError(
            f"{target} was made with another {' and '.join(differing)}: delete it, or choose"
            " another --output"
        )
    if stamps and manifest.get("stamps") != stamps:
        raise InputError(
            f"the images in {readable_name(source)} have changed since {target} was made of them:"
            f" delete {target}, or choose another --output"
        )
    return manifest


def _check_sizes(name: str, image_size: int, crop: int, listing: layouts.Listing) -> None:
    """Rejects sizes that would enlarge images; `image_folder` may contain any sizes."""
    if crop < 0:
        raise InputError(f"--crop is {crop}: give the side of a square in pixels")
    if listing.shape is None:
        return
    width, height = listing.shape
    if crop > min(width, height):
        raise InputError(f"--crop is {crop}: the images of {name} have {width} x {height} pixels")
    side = crop or min(width, height)
    if image_size > side:
        raise InputError(
            f"--size is {image_size}, but the central squares of {listing.root.name} have {side}"
            f" pixels: give at most {side}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 for I/O errors, 2 for invalid input, 130 if interrupted."""
    parser = CommandParser(prog="python -m pivq_jax.data.prepare", description=__doc__)
    add: Any = parser.add_argument
    add("--dataset", required=True, choices=tuple(_CONFIGS), help="name of the data set")
    add("--source", required=True, type=Path, help="directory of its files")
    add("--size", required=True, type=int, help="height and width in pixels")
    add(
        "--output",
        type=Path,
        help="directory for prepared data, also to be passed to training as --config.data.path=DIR;"
        " default: $PIVQ_DATA_DIR or ~/.cache/pivq_jax/data, where training looks by itself",
    )
    add(
        "--crop",
        type=int,
        default=0,
        help="side in pixels of the central square that is resized, e.g. 148 to cut CelebA close to"
        " the face; default: the largest square (178 for CelebA)",
    )
    add(
        "--attributes",
        type=Path,
        help="for image_folder: a CSV file whose first row names the attributes; each other row"
        " contains the path of an image within --source and its values",
    )
    add(
        "--group",
        default="",
        help="for image_folder: a regular expression for the path of an image without its suffix;"
        " images for which its parentheses match the same are in one split, e.g. '(.*)_[0-9]+' for"
        " photographs of persons named NAME_0001.jpg",
    )
    cores = usable_cores()
    add("--workers", type=int, default=cores, help="number of processes; default: all cores")
    return resumable_exit_code(partial(_prepare, parser.parse_args(arguments)))


def _prepare(options: argparse.Namespace) -> int:
    output = expanded(options.output or default_data_dir()).absolute()
    manifest = prepare_dataset(
        options.dataset,
        expanded(options.source).absolute(),
        options.size,
        output=output,
        crop=options.crop,
        attributes=options.attributes and expanded(options.attributes),
        group=options.group,
        workers=options.workers,
    )
    counts = ", ".join(f"{count:,} {split}" for split, count in manifest["images"].items())
    attributes, skipped = len(manifest["factors"]), len(manifest["skipped"])
    print(f"{options.dataset} at {options.size} pixels in {output}: {counts} images")
    print(f"{attributes} attributes; {skipped} images skipped")
    config, size = _CONFIGS[options.dataset]
    fits, needed = options.size >= size, f"{size} or more"
    if options.dataset == "image_folder":
        fits, needed = options.size % size == 0, f"a multiple of {size}"
    if not fits:
        hint = "; for 64 see docs/prepare_data.md" if options.dataset == "celeba" else ""
        print(f"configs/{config}.py takes a --size of {needed}{hint}")
        return 0
    command = f"python -m pivq_jax.main --config=configs/{config}.py"
    if config != options.dataset:
        command += f" --config.data.name={options.dataset}"
    if options.dataset == "image_folder":  # the other configs are for one size, and resize larger
        command += f" --config.data.image_size={options.size}"
    if options.output or options.dataset == "image_folder":
        command += f" --config.data.path={shlex.quote(os.fspath(output))}"
    print(f"train on it: {command}")
    if options.dataset == "image_folder":
        print("which other configs suit which images: docs/own_images.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
