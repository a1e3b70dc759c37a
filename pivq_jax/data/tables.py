"""The lists that official data sets bring, and tables of attributes: read and checked."""

import collections
import csv
import re
from pathlib import Path

from pivq_jax.common.errors import InputError
from pivq_jax.data.records import RESERVED
from pivq_jax.data.splits import SPLITS

# An attribute with more values is assumed to be a mistake, such as a column of numbers.
_MAX_VALUES = 256


def _lines(path: Path) -> list[list[str]]:
    """Returns the fields of each nonempty line."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    lines = [line.split() for line in text.splitlines()]
    return [fields for fields in lines if fields]


def read_partition(path: Path) -> dict[str, str]:
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


def read_attributes(path: Path) -> tuple[list[str], dict[str, tuple[int, ...]]]:
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


def read_mapping(path: Path) -> dict[int, str]:
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


def read_csv(path: Path) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[int, ...]]]:
    """Returns the sorted values of each attribute, and the indices of each image's values.

    The first row of the file names the attributes; each other row has the path of an image and its
    values.
    """
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
