"""Reads and checks the lists of official data sets, and tables of attributes."""

import csv
import re
import sys
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from pivq_jax.common.errors import InputError
from pivq_jax.data.records import RESERVED
from pivq_jax.data.splits import SPLITS

# An attribute with more values is assumed to be a mistake, such as a column of numbers.
_MAX_VALUES = 256
_MAX_NAME = 200


def _rows(path: Path, as_csv: bool = False) -> Iterator[list[str]]:
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


def read_partition(path: Path) -> dict[str, str]:
    """Returns the split of each image, from lines such as `000001.jpg 0`."""
    partition = {}
    for row in _rows(path):
        if len(row) != 2 or row[1] not in ("0", "1", "2"):
            raise _damaged(path, f"has the line {' '.join(row)[:60]!r}, not an image and 0, 1 or 2")
        partition[row[0]] = SPLITS[int(row[1])]
    for split in SPLITS:
        if split not in partition.values():
            raise _damaged(path, f"names no {split} image")
    return partition


def read_attributes(path: Path) -> tuple[list[str], dict[str, tuple[int, ...]]]:
    """Returns the attribute names, from the second line, and 0 or 1 for each, of each image."""
    rows = _rows(path)
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
    rows = _rows(path)
    next(rows, None)  # the names of the columns
    for row in rows:
        if len(row) != 3 or not re.fullmatch(r"[0-9]{1,9}", row[0]):
            raise _damaged(path, f"has the line {' '.join(row)[:60]!r}, not idx orig_idx orig_file")
        mapping[int(row[0])] = row[2]
    if not mapping:
        raise _damaged(path, "names no images")
    return mapping


def read_csv(
    path: Path, wanted: Container[str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[int, ...]]]:
    """Returns the sorted values of each attribute, and the indices of each wanted image's values.

    The first row of the file names the attributes; each other row has the path of an image and its
    values. Rows of other images are not used.
    """
    rows = _rows(path, as_csv=True)
    names = [name.strip() for name in next(rows, [])[1:]]
    if not names:
        raise InputError(
            f"{path} names no attributes: its first row must have a name for the image column"
            " and one for each attribute"
        )
    for name in names:
        allowed = re.fullmatch(r"\w[\w .-]*", name) and name not in RESERVED
        allowed = allowed and len(name.encode()) <= _MAX_NAME  # of a file, too
        if not allowed or names.count(name) > 1:
            raise InputError(
                f"{path} has an attribute named {name[:60]!r}: names consist of letters,"
                f" digits, spaces and _.-, at most {_MAX_NAME} bytes, occur once, and are not"
                f" {' or '.join(RESERVED)}"
            )

    values_of: dict[str, tuple[str, ...]] = {}
    columns: dict[str, set[str]] = {name: set() for name in names}
    for image, *fields in rows:
        values = tuple(sys.intern(field.strip()) for field in fields)  # each is kept once
        if len(values) != len(names) or not all((image, *values)):
            raise InputError(
                f"{path} does not give {image[:60]!r} a value for each of {len(names)} names"
            )
        if image not in wanted:
            continue
        if values_of.setdefault(image, values) != values:
            raise InputError(f"{path} has two rows for {image[:60]!r}, with other values: keep one")
        for value, (name, known) in zip(values, columns.items()):
            known.add(value)
            if len(known) > _MAX_VALUES:  # here, as all values may take gigabytes
                raise InputError(
                    f"{path} has more than {_MAX_VALUES} values of {name}: an attribute is a class"
                    f" of at most {_MAX_VALUES}; leave the column out"
                )
    factors = {name: tuple(sorted(known, key=_natural)) for name, known in columns.items()}
    indices = [{value: i for i, value in enumerate(known)} for known in factors.values()]
    images = {
        image: tuple(index[value] for index, value in zip(indices, values))
        for image, values in values_of.items()
    }
    return factors, images


def _natural(value: str) -> tuple[bool, int, str]:
    """Sort key: integers first, by value, then other values alphabetically."""
    number = re.fullmatch(r"-?\d{1,18}", value)  # longer ones are no class, and slow to convert
    return number is None, int(value) if number else 0, value
