"""The official layouts of CelebA, CelebA-HQ and FFHQ, and trees of images: what is in which split.

Each reader checks all lists before any image is read. Sources:

- CelebA: Liu et al. 2015, arXiv 1411.7766; mmlab.ie.cuhk.edu.hk/projects/CelebA.html
- CelebA-HQ: Karras et al. 2018, arXiv 1710.10196, as in CelebAMask-HQ: Lee et al. 2020, arXiv
  1907.11922; github.com/switchablenorms/CelebAMask-HQ
- FFHQ: Karras et al. 2019, arXiv 1812.04948; github.com/NVlabs/ffhq-dataset
"""

import csv
import dataclasses
import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from pivq_jax.common.errors import InputError
from pivq_jax.data.image_folder import SPLITS, assign_splits
from pivq_jax.data.images import EXTENSIONS, walk
from pivq_jax.data.records import RESERVED
from pivq_jax.data.shards import Entry

# The values of an attribute that the official lists give as -1 and 1.
BINARY = ("no", "yes")

# Where the official downloads put what a directory is searched for.
_PLACES = ("", "Img", "Anno", "Eval", "CelebAMask-HQ", "CelebA-HQ")

_FFHQ_TRAIN = 60_000
_FFHQ_IMAGES = 70_000

# An attribute with more values than this is taken for a mistake, such as a column of numbers.
_MAX_VALUES = 256


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a source holds.

    Attributes:
      root: the directory of the images, or a zip archive of them.
      splits: the images of each split, in order.
      factors: the names of the values of each attribute.
      shape: (width, height) of every image; None where any will do.
    """

    root: Path
    splits: dict[str, list[Entry]]
    factors: dict[str, tuple[str, ...]]
    shape: tuple[int, int] | None


def celeba(source: Path) -> Listing:
    """CelebA: aligned images (folder or zip), 40 attributes, the official partition.

    Raises:
      InputError: a file is missing, damaged or does not fit the others.
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
    """CelebA-HQ as in CelebAMask-HQ; each image is in the split of its original in CelebA.

    Raises:
      InputError: a file is missing, damaged or does not fit the others.
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
    """FFHQ: images 0 to 59,999 train, 60,000 to 69,999 validation; no test split, no attributes.

    Raises:
      InputError: no image of either split is there.
    """
    sides = {"images1024x1024": 1024, "thumbnails128x128": 128}
    wanted = "images1024x1024 or thumbnails128x128, or a directory that holds one of them"
    _check_directory(source, wanted)
    root = source if source.name in sides else _find(source, tuple(sides), wanted)
    found = {}
    for file, stamp in _files(root).items():
        if number := re.fullmatch(r"(\d{5})\.png", PurePosixPath(file).name):
            found[int(number[1])] = Entry(file, stamp, ())
    splits = {
        "train": [found[number] for number in sorted(found) if number < _FFHQ_TRAIN],
        "validation": [found[number] for number in sorted(found) if number >= _FFHQ_TRAIN],
    }
    for split, entries in splits.items():
        if not entries:
            raise InputError(
                f"{root} holds no {split} image of FFHQ (00000.png to 59999.png train, the others"
                f" validation; {len(found):,} of {_FFHQ_IMAGES:,} are there): complete the download"
            )
    side = sides[root.name]
    return Listing(root, splits, {}, (side, side))


def image_folder(source: Path, attributes: Path | None = None) -> Listing:
    """Any tree of images, split by a hash of their names within it.

    Args:
      source: the directory.
      attributes: a CSV file: the image's path within `source`, then a value an attribute; the first
        row names the attributes. Every image needs a row.

    Raises:
      InputError: fewer than three images, or attributes that are missing or do not fit.
    """
    _check_directory(source, "a directory of images")
    stamps = {
        file: stamp
        for file, stamp in _files(source).items()
        if PurePosixPath(file).suffix.lower() in EXTENSIONS
        and not PurePosixPath(file).name.startswith(".")
    }
    if len(stamps) < len(SPLITS):
        raise InputError(
            f"{source} holds {len(stamps)} images (files that end in"
            f" {' '.join(sorted(EXTENSIONS))}): a data set needs at least 3, one a split"
        )
    factors: dict[str, tuple[str, ...]] = {}
    rows: dict[str, tuple[int, ...]] = dict.fromkeys(stamps, ())
    if attributes is not None:
        factors, rows = _read_csv(attributes)
        _need_all(stamps, rows, source, attributes)
    assigned = assign_splits(sorted(stamps))
    splits: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    for file in sorted(stamps):
        splits[assigned[file]].append(Entry(file, stamps[file], rows[file]))
    return Listing(source, splits, factors, None)


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
    """The first of `names` that is in the directory, or in a place that downloads have."""
    for name in names:
        for place in _PLACES:
            if (source / place / name).exists():
                return source / place / name
    raise InputError(f"no {' or '.join(names)} in {source}: it needs {wanted}")


def _files(root: Path) -> dict[str, str]:
    """The files of a directory tree or zip archive, relative, and what changes when they do."""
    if root.is_dir():
        found = {}
        for path in walk(root):
            stat = path.stat()
            found[path.relative_to(root).as_posix()] = f"{stat.st_size} {stat.st_mtime_ns}"
        return found
    try:
        with zipfile.ZipFile(root) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{root} is no whole zip archive ({error}): download it again") from error
    return {m.filename: f"{m.file_size} {m.CRC:08x}" for m in members if not m.is_dir()}


def _by_name(stamps: dict[str, str]) -> dict[str, tuple[str, str]]:
    """(file, stamp) by the last part of the file's name."""
    return {PurePosixPath(file).name: (file, stamp) for file, stamp in stamps.items()}


def _need_all(wanted: Iterable[str], there: Iterable[str], where: Path, other: Path) -> None:
    """Every wanted name, which `where` holds, has to be in `other`."""
    wanted = list(wanted)
    missing = sorted(set(wanted) - set(there))
    if missing:
        raise InputError(
            f"{len(missing):,} of the {len(wanted):,} images in {where} are not in {other} (the"
            f" first is {missing[0]}): complete it"
        )


def _lines(path: Path) -> list[list[str]]:
    """The fields of each line that is not empty."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    lines = [line.split() for line in text.splitlines()]
    return [fields for fields in lines if fields]


def _read_partition(path: Path) -> dict[str, str]:
    """The split of each image: lines such as `000001.jpg 0`."""
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
    """(attribute names, 0 or 1 each of each image); the first line is the number of images."""
    lines = _lines(path)
    if len(lines) < 2 or len(lines[0]) != 1 or not lines[0][0].isdigit():
        raise InputError(
            f"{path} does not begin with the number of images and the attributes' names: download"
            " it again"
        )
    (count,), names, *rows = lines
    if len(rows) != int(count):
        raise InputError(
            f"{path} has {len(rows):,} of the {int(count):,} images that its first line promises:"
            " download it again"
        )
    attributes = {}
    for image, *values in rows:
        if len(values) != len(names) or not set(values) <= {"-1", "1"}:
            raise InputError(
                f"{path} does not give {image} {len(names)} values of -1 or 1: download it again"
            )
        attributes[image] = tuple(int(value == "1") for value in values)
    return names, attributes


def _read_mapping(path: Path) -> dict[int, str]:
    """The image of CelebA that each of CelebA-HQ was made of: `idx orig_idx orig_file`."""
    mapping = {}
    for fields in _lines(path)[1:]:
        if len(fields) != 3 or not fields[0].isdigit():
            raise InputError(
                f"{path} has the line {' '.join(fields)[:60]!r}, not `idx orig_idx orig_file`:"
                " download it again"
            )
        mapping[int(fields[0])] = fields[2]
    if not mapping:
        raise InputError(f"{path} names no images: download it again")
    return mapping


def _read_csv(path: Path) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[int, ...]]]:
    """(the values of each attribute, sorted; the index of its value of each attribute, by image)"""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            (_, *names), *rows = [row for row in csv.reader(file) if row] or [[""]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    for name in names:
        if not re.fullmatch(r"\w[\w .-]*", name) or name in RESERVED or names.count(name) > 1:
            raise InputError(
                f"{path} has an attribute named {name!r}: names are of letters, digits, spaces and"
                f" _.-, each one once, and not {' or '.join(RESERVED)}"
            )
    if not names:
        raise InputError(
            f"{path} names no attributes: its first row has the image, then a name each"
        )
    for row in rows:
        if len(row) != 1 + len(names) or not all(row):
            raise InputError(
                f"{path} does not give {row[0]!r} a value for each of {len(names)} names"
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
    """Integers by size, before all else by spelling."""
    number = re.fullmatch(r"-?\d+", value)
    return number is None, int(value) if number else 0, value
