"""Layouts of CelebA, CelebA-HQ, FFHQ and of directory trees: which image is in which split.

Each reader validates all lists before any image is read. Sources:

- CelebA: Liu et al. 2015, arXiv 1411.7766; mmlab.ie.cuhk.edu.hk/projects/CelebA.html
- CelebA-HQ: Karras et al. 2018, arXiv 1710.10196, as in CelebAMask-HQ: Lee et al. 2020, arXiv
  1907.11922; github.com/switchablenorms/CelebAMask-HQ
- FFHQ: Karras et al. 2019, arXiv 1812.04948; github.com/NVlabs/ffhq-dataset
"""

import collections
import csv
import dataclasses
import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from absl import logging

from pivq_jax.common.errors import InputError, brief
from pivq_jax.data.images import EXTENSIONS, is_image, readable_name, unread_kinds
from pivq_jax.data.records import RESERVED
from pivq_jax.data.shards import Entry
from pivq_jax.data.splits import SPLITS, in_splits
from pivq_jax.data.tree import list_files

# Names of the attribute values -1 and 1 of the official lists.
BINARY = ("no", "yes")

# Subdirectories of the official downloads that are searched for files.
_PLACES = ("", "Img", "Anno", "Eval", "CelebAMask-HQ", "CelebA-HQ")

_FFHQ_TRAIN = 60_000
_FFHQ_IMAGES = 70_000

# Bytes of the largest image in an archive; those of CelebA, of 178 x 218 pixels, have some 10 KB.
_MAX_MEMBER = 2**26

# An attribute with more values is assumed to be a mistake, such as a column of numbers.
_MAX_VALUES = 256


@dataclasses.dataclass(frozen=True)
class Listing:
    """Images and labels of a source.

    Attributes:
        root: directory of the images, or a zip archive.
        splits: images of each split, in order.
        factors: names of the values of each attribute.
        shape: (width, height) of every image; None if they may differ.
    """

    root: Path
    splits: dict[str, list[Entry]]
    factors: dict[str, tuple[str, ...]]
    shape: tuple[int, int] | None


def celeba(source: Path) -> Listing:
    """Lists CelebA: aligned images (folder or zip), 40 attributes, the official partition.

    Args:
        source: directory of the official files.

    Returns:
        A `Listing`.

    Raises:
        InputError: if a file is missing, damaged or inconsistent with the others.
    """
    wanted = "a directory with img_align_celeba (folder or .zip), list_attr_celeba.txt and "
    wanted += "list_eval_partition.txt, CelebA's own files"
    _check_directory(source, wanted)
    root = _find(source, ("img_align_celeba", "img_align_celeba.zip"), wanted)
    partition_file = _find(source, ("list_eval_partition.txt",), wanted)
    partition = _read_partition(partition_file)
    attributes_file = _find(source, ("list_attr_celeba.txt",), wanted)
    names, attributes = _read_attributes(attributes_file)

    stamps = _by_name(_files(root))
    _need_all(partition, stamps, partition_file, root)
    _need_all(partition, attributes, partition_file, attributes_file)
    splits: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    for image in sorted(partition):
        splits[partition[image]].append(Entry(*stamps[image], attributes[image]))
    return Listing(root, splits, dict.fromkeys(names, BINARY), (178, 218))


def celeba_hq(source: Path) -> Listing:
    """Lists CelebA-HQ as in CelebAMask-HQ; images have the split of their original in CelebA.

    Args:
        source: directory of the official files, with CelebA's list_eval_partition.txt.

    Returns:
        A `Listing`.

    Raises:
        InputError: if a file is missing, damaged or inconsistent with the others.
    """
    wanted = "the directory CelebAMask-HQ with CelebA-HQ-img, CelebA-HQ-to-CelebA-mapping.txt and "
    wanted += "CelebAMask-HQ-attribute-anno.txt"
    _check_directory(source, wanted)
    root = _find(source, ("CelebA-HQ-img",), wanted)
    mapping_file = _find(source, ("CelebA-HQ-to-CelebA-mapping.txt",), wanted)
    attributes_file = _find(source, ("CelebAMask-HQ-attribute-anno.txt",), wanted)
    partition_file = _find(
        source,
        ("list_eval_partition.txt",),
        "CelebA's list_eval_partition.txt too, as the splits of CelebA-HQ follow CelebA's: copy it"
        " there (CelebA's download has it in Eval)",
    )
    names, attributes = _read_attributes(attributes_file)
    mapping = _read_mapping(mapping_file)
    partition = _read_partition(partition_file)

    stamps = _by_name(_files(root))
    images = [f"{index}.jpg" for index in mapping]
    _need_all(images, stamps, mapping_file, root)
    _need_all(images, attributes, mapping_file, attributes_file)
    _need_all(mapping.values(), partition, mapping_file, partition_file)
    splits: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    for index in sorted(mapping):
        image = f"{index}.jpg"
        splits[partition[mapping[index]]].append(Entry(*stamps[image], attributes[image]))
    return Listing(root, splits, dict.fromkeys(names, BINARY), (1024, 1024))


def ffhq(source: Path) -> Listing:
    """Lists FFHQ: images 0 to 59,999 train, 60,000 to 69,999 validation.

    FFHQ has no test split and no attributes.

    Args:
        source: directory of the official files, or images1024x1024 or thumbnails128x128 itself.

    Returns:
        A `Listing`.

    Raises:
        InputError: if either split has no image.
    """
    sides = {"images1024x1024": 1024, "thumbnails128x128": 128}
    wanted = "images1024x1024 or thumbnails128x128, or a directory that holds one of them"
    _check_directory(source, wanted)
    root = source if source.name in sides else _find(source, tuple(sides), wanted)
    files = {}
    for file, stamp in _files(root).items():
        if number := re.fullmatch(r"(\d{5})\.png", PurePosixPath(file).name):
            files[int(number[1])] = Entry(file, stamp, ())
    splits = {
        "train": [files[number] for number in sorted(files) if number < _FFHQ_TRAIN],
        "validation": [files[number] for number in sorted(files) if number >= _FFHQ_TRAIN],
    }
    for split, entries in splits.items():
        if not entries:
            raise InputError(
                f"{root} holds no {split} image of FFHQ (00000.png to 59999.png train, the others"
                f" validation; {len(files):,} of {_FFHQ_IMAGES:,} are there): complete the download"
            )
    side = sides[root.name]
    return Listing(root, splits, {}, (side, side))


def image_folder(source: Path, attributes: Path | None = None) -> Listing:
    """Lists a directory tree of images, split by a hash of their relative paths.

    Args:
        source: the directory.
        attributes: a CSV file whose first row names the attributes; each other row contains the
            path of an image within `source` and one value per attribute. Every image needs a row.

    Returns:
        A `Listing`.

    Raises:
        InputError: if there are fewer than three images, or attributes are missing or invalid.
    """
    _check_directory(source, "a directory of images")
    files = list_files(source)
    stamps = {file: stamp for file, stamp in files.items() if is_image(file)}
    unread = unread_kinds(files)
    if len(stamps) < len(SPLITS):
        raise InputError(
            f"{source} holds {len(stamps)} images (files that end in"
            f" {' '.join(sorted(EXTENSIONS))}{f'; {unread}' if unread else ''}): a data set needs"
            " at least 3, one per split"
        )
    if unread:
        logging.warning("%s: %s", readable_name(source), unread)
    factors: dict[str, tuple[str, ...]] = {}
    rows: dict[str, tuple[int, ...]] = dict.fromkeys(stamps, ())
    if attributes is not None:
        factors, rows = _read_csv(attributes)
        _need_all(stamps, rows, source, attributes)
    entries = [Entry(file, stamp, rows[file]) for file, stamp in stamps.items()]
    return Listing(source, in_splits(entries), factors, None)


READERS: dict[str, Callable[[Path], Listing]] = {
    "celeba": celeba,
    "celeba_hq": celeba_hq,
    "ffhq": ffhq,
    "image_folder": image_folder,
}


def _check_directory(source: Path, wanted: str) -> None:
    if not source.is_dir():
        what = "is a file" if source.exists() else "does not exist"
        raise InputError(f"{source} {what}: give {wanted}")


def _find(source: Path, names: Sequence[str], wanted: str) -> Path:
    """Returns the first of `names` in the directory or a subdirectory that downloads have."""
    for name in names:
        for place in _PLACES:
            if (source / place / name).exists():
                return source / place / name
    raise InputError(f"no {' or '.join(names)} in {source}: it needs {wanted}")


def _files(root: Path) -> dict[str, str]:
    """Returns the relative path and a stamp, which changes with the file, of each file."""
    if root.is_dir():
        return list_files(root)
    try:
        with zipfile.ZipFile(root) as archive:
            # `is_dir` fails for a member without a name.
            members = [m for m in archive.infolist() if not m.filename.endswith("/")]
    except Exception as error:  # zipfile raises many types for a damaged directory
        raise InputError(
            f"{root} is not a complete zip archive ({brief(error)}): download it again"
        ) from error
    for member in members:
        if member.flag_bits & 1:
            raise InputError(f"{root} is encrypted: unzip it, and give the folder in its place")
        if member.file_size > _MAX_MEMBER:
            raise InputError(
                f"{root} has {member.filename} with {member.file_size:,} bytes, more than"
                f" {_MAX_MEMBER:,}: download it again"
            )
    return {m.filename: f"{m.file_size} {m.CRC:08x}" for m in members}


def _by_name(stamps: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Maps the last component of each path to (file, stamp)."""
    return {PurePosixPath(file).name: (file, stamp) for file, stamp in stamps.items()}


def _need_all(wanted: Iterable[str], there: Iterable[str], where: Path, other: Path) -> None:
    """Raises an error if a wanted name, listed in `where`, is missing in `other`."""
    wanted = list(wanted)
    missing = sorted(set(wanted) - set(there))
    if missing:
        raise InputError(
            f"{len(missing):,} of the {len(wanted):,} images in {where} are not in {other} (the"
            f" first is {missing[0]}): complete it"
        )


def _lines(path: Path) -> list[list[str]]:
    """Returns the fields of each nonempty line."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    lines = [line.split() for line in text.splitlines()]
    return [fields for fields in lines if fields]


def _read_partition(path: Path) -> dict[str, str]:
    """Returns the split of each image, from lines such as `000001.jpg 0`."""
    partition = {}
    for fields in _lines(path):
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise InputError(
                f"{path} has the line {' '.join(fields)[:60]!r}, not an image and 0, 1 or 2:"
                " download it again"
            )
        partition[fields[0]] = SPLITS[int(fields[1])]
    for split in SPLITS:
        if split not in partition.values():
            raise InputError(f"{path} names no {split} image: download it again")
    return partition


def _read_attributes(path: Path) -> tuple[list[str], dict[str, tuple[int, ...]]]:
    """Returns the attribute names and, for each image, 0 or 1 per attribute.

    The first line is the number of images and the second contains the names.
    """
    lines = _lines(path)
    if len(lines) < 2 or len(lines[0]) != 1 or not re.fullmatch(r"[0-9]{1,9}", lines[0][0]):
        raise InputError(
            f"{path} does not begin with the number of images and the attributes' names: download"
            " it again"
        )
    (count,), names, *rows = lines
    if len(rows) != int(count):
        raise InputError(
            f"{path} has {len(rows):,} of the {int(count):,} images that its first line states:"
            " download it again"
        )
    attributes = {}
    for image, *values in rows:
        if len(values) != len(names) or not set(values) <= {"-1", "1"}:
            raise InputError(
                f"{path} does not give {image[:60]} {len(names)} values of -1 or 1: download it"
                " again"
            )
        attributes[image] = tuple(int(value == "1") for value in values)
    return names, attributes


def _read_mapping(path: Path) -> dict[int, str]:
    """Returns the CelebA image of each CelebA-HQ image, from lines `idx orig_idx orig_file`."""
    mapping = {}
    for fields in _lines(path)[1:]:
        if len(fields) != 3 or not re.fullmatch(r"[0-9]{1,9}", fields[0]):
            raise InputError(
                f"{path} has the line {' '.join(fields)[:60]!r}, not `idx orig_idx orig_file`:"
                " download it again"
            )
        mapping[int(fields[0])] = fields[2]
    if not mapping:
        raise InputError(f"{path} names no images: download it again")
    return mapping


def _read_csv(path: Path) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[int, ...]]]:
    """Returns the sorted values of each attribute, and the indices of each image's values."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            (_, *names), *rows = [row for row in csv.reader(file) if row] or [[""]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    counts = collections.Counter(names)
    for name in names:
        if not re.fullmatch(r"\w[\w .-]*", name) or name in RESERVED or counts[name] > 1:
            raise InputError(
                f"{path} has an attribute named {name[:60]!r}: names consist of letters, digits,"
                f" spaces and _.-, occur once, and are not {' or '.join(RESERVED)}"
            )
    if not names:
        raise InputError(
            f"{path} names no attributes: its first row must have a name for the image column and"
            " one for each attribute"
        )
    for row in rows:
        if len(row) != 1 + len(names) or not all(row):
            raise InputError(
                f"{path} does not give {row[0][:60]!r} a value for each of {len(names)} names"
            )
    values = {}
    for column, name in enumerate(names, 1):
        values[name] = tuple(sorted({row[column] for row in rows}, key=_natural))
        if len(values[name]) > _MAX_VALUES:
            raise InputError(
                f"{path} has {len(values[name]):,} values of {name}: an attribute is a class of at"
                f" most {_MAX_VALUES}; leave the column out"
            )
    place = {name: {value: i for i, value in enumerate(known)} for name, known in values.items()}
    indices = {
        row[0]: tuple(place[name][value] for name, value in zip(names, row[1:])) for row in rows
    }
    return values, indices


def _natural(value: str) -> tuple[bool, int, str]:
    """Sort key: integers first, by value, then other values alphabetically."""
    number = re.fullmatch(r"-?\d{1,18}", value)  # longer ones are no class, and slow to convert
    return number is None, int(value) if number else 0, value
