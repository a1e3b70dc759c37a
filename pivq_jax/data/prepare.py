"""Prepares a data set for training from its official files.

    python -m pivq_jax.data.prepare --dataset=celeba --source=~/celeba --size=128
    python -m pivq_jax.main --config=configs/celeba.py

Contents of --source:
  celeba        img_align_celeba (folder or .zip), list_attr_celeba.txt, list_eval_partition.txt
  celeba_hq     CelebA-HQ-img, CelebA-HQ-to-CelebA-mapping.txt, CelebAMask-HQ-attribute-anno.txt
                and CelebA's list_eval_partition.txt
  ffhq          images1024x1024 or thumbnails128x128
  image_folder  any directory tree of aligned images; --attributes=FILE.csv adds labels

The central square of each image is resized (Lanczos) and stored as PNG. Images that cannot be read
are reported and skipped; if they are more than 1 %, the command fails. The command may be
interrupted at any time; if it is run again, it continues and produces the same bytes.
"""

import argparse
import contextlib
import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pivq_jax.common.command_line import CommandParser, exit_code
from pivq_jax.common.errors import InputError
from pivq_jax.data.preparation import default_data_dir, locked, progress, usable_cores

NAMES = ("celeba", "celeba_hq", "ffhq", "image_folder")

# Images per shard: the most that each worker loses if the command is interrupted.
_SHARD_IMAGES = 1024

_MAX_SKIPPED = 0.01


def prepare_dataset(
    name: str,
    source: Path,
    image_size: int,
    *,
    output: Path,
    crop: int = 0,
    attributes: Path | None = None,
    workers: int = 1,
) -> dict[str, Any]:
    """Prepares a data set in `{output}/{name}/{image_size}px`, unless it is already there.

    Args:
        name: one of `NAMES`.
        source: directory of the official files; see `layouts`.
        image_size: height and width in pixels, at least 8.
        output: directory of prepared data sets.
        crop: side of the central square that is resized, in pixels; 0 for the largest square.
        attributes: a CSV file, for `image_folder` only; see `layouts.image_folder`.
        workers: number of processes.

    Returns:
        The contents of `prepared.json`, including `images`, the number of images in each split, and
        `skipped`.

    Raises:
        InputError: if the source is incomplete, more than 1 % of it cannot be read, different data
            is prepared in `output`, or an argument is out of range.
        OSError: if the disk is full; the next call continues with the work done so far.
    """
    from pivq_jax.data import layouts, records

    if image_size < 8:
        raise InputError(f"--size is {image_size}: it must be at least 8")
    if workers < 1:
        raise InputError(f"--workers is {workers}: it must be at least 1")
    if attributes is not None and name != "image_folder":
        raise InputError(f"--attributes is for image_folder: {name} has its own")
    if attributes is not None:
        listing = layouts.image_folder(source, attributes)
    else:
        listing = layouts.READERS[name](source)
    _check_sizes(name, image_size, crop, listing)

    target = records.set_directory(output, name, image_size)
    work = target.with_name(f".{target.name}.incomplete")
    asked = {"name": name, "image_size": image_size, "crop": crop, "source": _digest(listing)}
    with locked(target.with_name(f".{target.name}.lock"), f"{name} at {image_size} pixels"):
        if not target.exists():
            _make(work, listing, asked, workers)
            os.replace(work / "data", target)
        shutil.rmtree(work, ignore_errors=True)
    manifest = records.read_manifest(target)
    differing = [key for key, value in asked.items() if manifest.get(key) != value]
    if differing:
        raise InputError(
            f"{target} was made with another {' and '.join(differing)}: delete it, or choose"
            " another --output"
        )
    return manifest


def _check_sizes(name: str, image_size: int, crop: int, listing: Any) -> None:
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


def _digest(listing: Any) -> str:
    """Returns a hash of names, splits and attributes, independent of the location of the source."""
    entries = {
        split: [(entry.file, entry.factors) for entry in entries]
        for split, entries in listing.splits.items()
    }
    return hashlib.sha256(repr((entries, listing.factors)).encode()).hexdigest()[:16]


def _make(work: Path, listing: Any, asked: dict[str, Any], workers: int) -> None:
    """Writes the data set to `work`/data, continuing the work of an earlier call."""
    from pivq_jax.data import records, shards

    name, image_size = asked["name"], asked["image_size"]
    recipe = shards.Recipe(
        os.fspath(listing.root), image_size, asked["crop"], listing.shape, tuple(listing.factors)
    )
    plan = {
        split: list(_shards(work, name, split, entries))
        for split, entries in listing.splits.items()
    }
    everything = [shard for shards_of_split in plan.values() for shard in shards_of_split]
    (work / "data").mkdir(parents=True, exist_ok=True)
    (work / "done").mkdir(exist_ok=True)
    expected = {path for shard in everything for path in (shard.path, shard.summary)}
    for path in [*(work / "data").iterdir(), *(work / "done").iterdir()]:
        if path not in expected:
            path.unlink()

    summaries = {shard.path: shards.read_summary(recipe, shard) for shard in everything}
    missing = [shard for shard in everything if summaries[shard.path] is None]
    skipped = [line for summary in summaries.values() if summary for line in summary["skipped"]]
    total = sum(len(shard.entries) for shard in everything)
    _check_skipped(skipped, total, listing.root)
    for reason in _with_progress(recipe, missing, workers, f"{name} {image_size}px"):
        skipped.append(reason)
        _check_skipped(skipped, total, listing.root)

    summaries = {shard.path: shards.read_summary(recipe, shard) for shard in everything}
    in_order = {split: [summaries[s.path] or {} for s in plan[split]] for split in plan}
    lengths = {split: [s["images"] for s in parts] for split, parts in in_order.items()}
    for split, counts in lengths.items():
        if not sum(counts):
            raise InputError(
                f"no {split} image of {name} in {listing.root}: give a complete source"
            )
    manifest = {
        **asked,
        "images": {split: sum(counts) for split, counts in lengths.items()},
        "skipped": [line for parts in in_order.values() for s in parts for line in s["skipped"]],
    }
    sizes = {split: sum(s["bytes"] for s in parts) for split, parts in in_order.items()}
    records.write_metadata(
        work / "data", name, image_size, listing.factors, lengths, sizes, manifest
    )


def _shards(work: Path, name: str, split: str, entries: Sequence[Any]) -> Iterator[Any]:
    from pivq_jax.data import records, shards

    count = max(1, -(-len(entries) // _SHARD_IMAGES))
    for index in range(count):
        file = records.shard_name(name, split, index, count)
        part = tuple(entries[index * _SHARD_IMAGES : (index + 1) * _SHARD_IMAGES])
        yield shards.Shard(work / "data" / file, work / "done" / f"{file}.json", part)


def _with_progress(recipe: Any, missing: list[Any], workers: int, label: str) -> Generator[str]:
    """Writes shards with a progress bar; prints and yields the reason for each skipped image."""
    from tqdm import tqdm

    from pivq_jax.data import shards

    images = sum(len(shard.entries) for shard in missing)
    with contextlib.closing(shards.write_shards(recipe, missing, workers)) as reasons:
        for reason in progress(reasons, label, images):
            if reason:
                tqdm.write(f"skipped: {reason}", file=sys.stderr)
                yield reason


def _check_skipped(skipped: list[str], total: int, root: Path) -> None:
    if len(skipped) > _MAX_SKIPPED * total:
        raise InputError(
            f"more than 1 % of the {total:,} images in {root} cannot be read ({skipped[0]}):"
            " download them again"
        )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(prog="python -m pivq_jax.data.prepare", description=__doc__)
    parser.add_argument("--dataset", required=True, choices=NAMES, help="name of the data set")
    parser.add_argument("--source", required=True, type=Path, help="directory of its files")
    parser.add_argument("--size", required=True, type=int, help="height and width in pixels")
    parser.add_argument(
        "--output",
        type=Path,
        help="directory for prepared data, also to be passed to training as --config.data.path=DIR;"
        " default: $PIVQ_DATA_DIR or ~/.cache/pivq_jax/data, where training looks by itself",
    )
    parser.add_argument(
        "--crop",
        type=int,
        default=0,
        help="side in pixels of the central square that is resized, e.g. 148 to cut CelebA close to"
        " the face; default: the largest square (178 for CelebA)",
    )
    parser.add_argument(
        "--attributes",
        type=Path,
        help="for image_folder: a CSV file whose first row names the attributes; each other row"
        " contains the path of an image within --source and its values",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=usable_cores(),
        help="number of processes; default: all cores",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: command-line arguments without the program; defaults to `sys.argv[1:]`.

    Returns:
        The exit status, 0 on success, 1 for I/O errors, 2 for invalid input, 130 if interrupted.
    """
    remedy = "the same command continues where this stopped"
    try:
        return exit_code(partial(_prepare, _parse(arguments)), f": {remedy}")
    except KeyboardInterrupt:
        print(f"\ninterrupted; {remedy}", file=sys.stderr)
        return 130


def _prepare(options: argparse.Namespace) -> int:
    output = (options.output or default_data_dir()).expanduser().absolute()
    manifest = prepare_dataset(
        options.dataset,
        options.source.expanduser().absolute(),
        options.size,
        output=output,
        crop=options.crop,
        attributes=options.attributes and options.attributes.expanduser(),
        workers=options.workers,
    )
    counts = ", ".join(f"{count:,} {split}" for split, count in manifest["images"].items())
    attributes, skipped = len(manifest["factors"]), len(manifest["skipped"])
    print(f"{options.dataset} at {options.size} pixels in {output}: {counts} images")
    print(f"{attributes} attributes; {skipped} images skipped")
    command = f"python -m pivq_jax.main --config=configs/{options.dataset}.py"
    command += f" --config.data.image_size={options.size}"
    if options.output or options.dataset == "image_folder":
        command += f" --config.data.path={shlex.quote(os.fspath(output))}"
    print(f"train on it: {command}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
