"""Layouts of CelebA, CelebA-HQ, FFHQ and LFW: images, splits and attributes, and their records.

Each reader validates all lists before any image is read. Sources:

- CelebA: Liu et al. 2015, arXiv 1411.7766; mmlab.ie.cuhk.edu.hk/projects/CelebA.html
- CelebA-HQ: Karras et al. 2018, arXiv 1710.10196, as in CelebAMask-HQ: Lee et al. 2020, arXiv
  1907.11922; github.com/switchablenorms/CelebAMask-HQ
- FFHQ: Karras et al. 2019, arXiv 1812.04948; github.com/NVlabs/ffhq-dataset
- LFW: Huang et al. 2007, technical report 07-49 of the University of Massachusetts, Amherst;
  funneled: Huang et al. 2007 (ICCV); deep funneled: Huang et al. 2012 (NIPS)
"""

import csv
import functools
import hashlib
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from pivq_jax.common.errors import InputError
from pivq_jax.common.pictures import encode_png
from pivq_jax.data import images
from pivq_jax.data.builder import Entry, Plan
from pivq_jax.data.splits import SPLITS, in_splits
from pivq_jax.data.tree import existing_directory, list_files

# Subdirectories of the official downloads that are searched for files.
_FOLDERS = ("", "Img", "Anno", "Eval", "CelebAMask-HQ", "CelebA-HQ")

# The folders of Labeled Faces in the Wild, original and aligned in two ways.
_LFW_FOLDERS = ("lfw", "lfw-funneled", "lfw_funneled", "lfw-deepfunneled")


class Listing(NamedTuple):
    """Images and labels of a source."""

    root: Path  # directory of the images, or a zip archive
    splits: dict[str, list[Entry]]  # images of each split, in order
    factors: dict[str, tuple[str, ...]]  # names of the values of each attribute
    shape: tuple[int, int] | None  # (width, height) of every image; None if they may differ


def read_image(
    root: str, image_size: int, crop: int, shape: tuple[int, int] | None, entry: Entry
) -> tuple[bytes, tuple[int, ...]]:
    """Returns the PNG file and values of an entry of a directory or archive; see `builder.Make`."""
    name = images.readable_name(entry.file)
    file: Any = os.path.join(root, entry.file)
    if os.path.isfile(root):
        with images.damage_as_input_error(f"cannot read image {name}"):
            file = io.BytesIO(_archive(root).read(entry.file))
    image = images.decode_image(file, image_size, name=name, crop=crop, shape=shape)
    return encode_png(image), entry.factors


@functools.cache
def _archive(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def plan_of_files(
    name: str, listing: Listing, image_size: int, crop: int = 0, group: str = ""
) -> Plan:
    """Returns the plan that prepares listed image files."""
    import PIL

    # Names, splits and attributes, wherever the source is.
    entries = {split: [(e.file, e.factors) for e in part] for split, part in listing.splits.items()}
    digest = hashlib.sha256(os.fsencode(repr((entries, listing.factors)))).hexdigest()[:16]
    origin = {"name": name, "image_size": image_size, "crop": crop, "source": digest}
    root, shape = os.fspath(listing.root), listing.shape
    return Plan(
        name=name,
        image_size=image_size,
        splits=listing.splits,
        factors=listing.factors,
        identity=repr((PIL.__version__, image_size, crop, shape)),
        make=functools.partial(read_image, root, image_size, crop, shape),
        origin=origin | ({"group": group} if group else {}),
        source=images.readable_name(root),
    )


def celeba(source: Path) -> Listing:
    """Lists CelebA: aligned images (folder or zip), 40 attributes, the official partition."""
    contents = "img_align_celeba (folder or .zip), list_attr_celeba.txt and list_eval_partition.txt"
    root = _find(source, contents, "img_align_celeba", "img_align_celeba.zip")
    partition_file = _find(source, contents, "list_eval_partition.txt")
    attributes_file = _find(source, contents, "list_attr_celeba.txt")
    partition = _read_partition(partition_file)
    return _list_labelled(root, partition, partition_file, attributes_file, (178, 218))


def celeba_hq(source: Path) -> Listing:
    """Lists CelebA-HQ as in CelebAMask-HQ; images have the split of their original in CelebA."""
    contents = "CelebA-HQ-img, CelebA-HQ-to-CelebA-mapping.txt and CelebAMask-HQ-attribute-anno.txt"
    root = _find(source, contents, "CelebA-HQ-img")
    mapping_file = _find(source, contents, "CelebA-HQ-to-CelebA-mapping.txt")
    attributes_file = _find(source, contents, "CelebAMask-HQ-attribute-anno.txt")
    contents = (
        "CelebA's list_eval_partition.txt too, as the splits of CelebA-HQ follow CelebA's: copy it"
        " there (CelebA's download has it in Eval)"
    )
    partition_file = _find(source, contents, "list_eval_partition.txt")
    mapping, partition = read_mapping(mapping_file), _read_partition(partition_file)
    need_all(mapping.values(), partition, mapping_file, partition_file)
    split_of = {f"{index}.jpg": partition[image] for index, image in mapping.items()}
    return _list_labelled(root, split_of, mapping_file, attributes_file, (1024, 1024))


def _list_labelled(
    root: Path,
    split_of: dict[str, str],
    listed: Path,
    attributes_file: Path,
    shape: tuple[int, int],
) -> Listing:
    """Lists the images in the directory `root` that the file `listed` names, with attributes."""
    names, attributes = _read_attributes(attributes_file)
    stamps = _by_name(root)
    need_all(split_of, stamps, listed, root)
    need_all(split_of, attributes, listed, attributes_file)
    splits: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    for image in sorted(split_of, key=lambda name: (len(name), name)):  # by number
        splits[split_of[image]].append(Entry(*stamps[image], attributes[image]))
    return Listing(root, splits, dict.fromkeys(names, ("no", "yes")), shape)  # of -1 and 1


def ffhq(source: Path) -> Listing:
    """Lists FFHQ: images 0 to 59,999 train, 60,000 to 69,999 validation, none test."""
    sides = {"images1024x1024": 1024, "thumbnails128x128": 128}
    contents = "images1024x1024 or thumbnails128x128, or a directory that holds one of them"
    root = existing_directory(source, contents)
    if root.name not in sides:
        root = _find(root, contents, *sides)
    splits: dict[str, list[Entry]] = {"train": [], "validation": []}
    for name, (file, stamp) in sorted(_by_name(root).items()):
        if re.fullmatch(r"\d{5}\.png", name):
            split = "train" if int(name[:5]) < 60_000 else "validation"
            splits[split].append(Entry(file, stamp, ()))
    _warn_of_missing(root, sum(map(len, splits.values())), official=70_000)
    side = sides[root.name]
    return Listing(root, splits, {}, (side, side))


def lfw(source: Path) -> Listing:
    """Lists Labeled Faces in the Wild, split by a hash of the person's name."""
    contents = f"{', '.join(_LFW_FOLDERS)}, or a directory that holds one of them"
    root = existing_directory(source, contents)
    while nested := [name for name in _LFW_FOLDERS if (root / name).is_dir()]:  # as in some copies
        root = root / nested[0]
    entries = [
        Entry(file, stamp, ())
        for file, stamp in list_files(root).items()
        if re.fullmatch(r"([^/]+)/\1_[0-9]{4}\.jpg", file)
    ]
    persons = {entry.file.split("/")[0] for entry in entries}
    if len(persons) < len(SPLITS):
        raise InputError(
            f"{root} holds images (such as NAME/NAME_0001.jpg) of {len(persons)} persons, and needs"
            f" 3 at least, one per split: give {contents}"
        )
    _warn_of_missing(root, len(entries), official=13_233)
    return Listing(root, in_splits(entries, group="([^/]+)/[^/]+"), {}, (250, 250))


READERS: dict[str, Callable[[Path], Listing]] = {
    reader.__name__: reader for reader in (celeba, celeba_hq, ffhq, lfw)
}


def _warn_of_missing(root: Path, count: int, official: int) -> None:
    """Warns if fewer images are there than the official data set has."""
    if count < official:
        logging.warning(f"{images.readable_name(root)} holds {count:,} of {official:,} images")


def _find(source: Path, contents: str, *names: str) -> Path:
    """Returns the first of `names` in the directory or a subdirectory that downloads have."""
    existing_directory(source, f"a directory with {contents}")
    for name in names:
        for folder in _FOLDERS:
            if (path := source / folder / name).exists():
                return path
    raise InputError(f"no {' or '.join(names)} in {source}: it needs {contents}")


def _by_name(root: Path) -> dict[str, tuple[str, str]]:
    """Returns the path and the stamp of each file of a directory or archive by its name alone."""
    if root.is_dir():
        files = list_files(root)
    else:
        damaged = f"{root} is not a complete zip archive"
        with (
            images.damage_as_input_error(damaged, "download it again"),
            zipfile.ZipFile(root) as archive,
        ):
            # `is_dir` fails for a member without a name.
            members = [m for m in archive.infolist() if not m.filename.endswith("/")]
        if any(member.flag_bits & 1 for member in members):
            raise InputError(f"{root} is encrypted: unzip it, and give the folder in its place")
        files = {m.filename: f"{m.file_size} {m.CRC:08x}" for m in members}
    return {os.path.basename(file): (file, stamp) for file, stamp in files.items()}


def need_all(names: Iterable[str], there: Iterable[str], where: Path, other: Path) -> None:
    """Raises an error if a name, listed in `where`, is missing in `other`."""
    names = list(names)
    missing = sorted(set(names) - set(there))
    if missing:
        raise InputError(
            f"{len(missing):,} of the {len(names):,} images in {where} are not in {other} (the"
            f" first is {missing[0]}): complete it"
        )


def _read_partition(path: Path) -> dict[str, str]:
    """Returns the split of each image, from lines such as `000001.jpg 0`."""
    partition = {}
    for row in read_rows(path):
        if len(row) != 2 or row[1] not in ("0", "1", "2"):
            raise _damaged(path, f"has the line {' '.join(row)[:60]!r}, not an image and 0, 1 or 2")
        partition[row[0]] = SPLITS[int(row[1])]
    for split in SPLITS:
        if split not in partition.values():
            raise _damaged(path, f"names no {split} image")
    return partition


def _read_attributes(path: Path) -> tuple[list[str], dict[str, tuple[int, ...]]]:
    """Returns the attribute names, from the second line, and 0 or 1 for each, of each image."""
    rows = read_rows(path)
    first, names = next(rows, []), next(rows, [])
    if not names or len(first) != 1 or not re.fullmatch(r"[0-9]{1,9}", first[0]):
        raise _damaged(path, "does not begin with the number of images and the attributes' names")
    attributes, count = {}, 0
    for image, *values in rows:
        count += 1
        if len(values) != len(names) or not set(values) <= {"-1", "1"}:
            raise _damaged(path, f"does not give {image[:60]} {len(names)} values of -1 or 1")
        attributes[image] = tuple(int(value == "1") for value in values)
    if count != int(first[0]):
        raise _damaged(
            path, f"has {count:,} of the {int(first[0]):,} images that its first line states"
        )
    return names, attributes


def read_mapping(path: Path) -> dict[int, str]:
    """Returns the CelebA image of each CelebA-HQ image, from lines `idx orig_idx orig_file`."""
    mapping = {}
    rows = read_rows(path)
    next(rows, None)  # the names of the columns
    for row in rows:
        if len(row) != 3 or not re.fullmatch(r"[0-9]{1,9}", row[0]):
            raise _damaged(path, f"has the line {' '.join(row)[:60]!r}, not idx orig_idx orig_file")
        mapping[int(row[0])] = row[2]
    if not mapping:
        raise _damaged(path, "names no images")
    return mapping


def read_rows(path: Path, as_csv: bool = False) -> Iterator[list[str]]:
    """Yields the fields of each nonempty row: what is between spaces, or those of CSV."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows: Iterable[list[str]] = csv.reader(file) if as_csv else map(str.split, file)
            yield from filter(None, rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def _damaged(path: Path, how: str) -> InputError:
    """Returns the error of an official list that has another form."""
    return InputError(f"{path} {how}: download it again")
