"""The lists that official data sets bring, and tables of attributes: read and checked."""

import csv
import re
import sys
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from pivq_jax.common.errors import InputError
from pivq_jax.data.records import RESERVED
from pivq_jax.data.splits import SPLITS

# An attribute with more values is assumed to be a mistake, such as a column of numbers.
_MAX_VALUES = 256
_MAX_NAME = 200

# What a list may take in memory: characters of a line, attributes, and bytes of all that is kept.
_MAX_LINE = 2**18
_MAX_NAMES = 1_024
_MAX_MEMORY = 208 * 2**20
_PLACE = 80  # bytes of a place in a dictionary, about


class _Table:
    """The rows of a list, as fields; a long line, or keeping too much, is an error."""

    def __init__(self, path: Path) -> None:
        self._path, self._length, self._left = path, 0, _MAX_MEMORY

    def rows(self, as_csv: bool = False) -> Iterator[list[str]]:
        """Yields the fields of each nonempty row: what is between spaces, or those of CSV."""
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                lines = self._lines(file)
                rows: Iterable[list[str]] = csv.reader(lines) if as_csv else map(str.split, lines)
                for row in rows:
                    self._length = 0
                    if row:
                        yield row
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"cannot read {self._path}: {error}") from error

    def _lines(self, file: IO[str]) -> Iterator[str]:
        while line := file.readline(_MAX_LINE + 1):
            self._length += len(line)  # of the row so far, which in quotes may have several lines
            if self._length > _MAX_LINE:
                raise InputError(f"{self._path} has a line of more than {_MAX_LINE:,} characters")
            yield line

    def check_names(self, names: list[str]) -> None:
        if len(names) > _MAX_NAMES:
            raise InputError(
                f"{self._path} names {len(names):,} attributes, more than {_MAX_NAMES:,}"
            )

    def keep(self, text: str, numbers: int = 0) -> None:
        """Counts the bytes of a text and of a tuple of numbers that are kept."""
        self._left -= sys.getsizeof(text) + _PLACE + 8 * numbers
        if self._left < 0:
            raise InputError(
                f"{self._path} takes more than {_MAX_MEMORY:,} bytes of memory: give fewer images"
                " or attributes"
            )

    def damaged(self, how: str) -> InputError:
        """Returns the error of an official list that has another form."""
        return InputError(f"{self._path} {how}: download it again")


def read_partition(path: Path) -> dict[str, str]:
    """Returns the split of each image, from lines such as `000001.jpg 0`."""
    partition, table = {}, _Table(path)
    for row in table.rows():
        if len(row) != 2 or row[1] not in ("0", "1", "2"):
            raise table.damaged(f"has the line {' '.join(row)[:60]!r}, not an image and 0, 1 or 2")
        table.keep(row[0])
        partition[row[0]] = SPLITS[int(row[1])]
    for split in SPLITS:
        if split not in partition.values():
            raise table.damaged(f"names no {split} image")
    return partition


def read_attributes(path: Path) -> tuple[list[str], dict[str, tuple[int, ...]]]:
    """Returns the attribute names, from the second line, and 0 or 1 for each, of each image."""
    table = _Table(path)
    rows = table.rows()
    first, names = next(rows, []), next(rows, [])
    if not names or len(first) != 1 or not re.fullmatch(r"[0-9]{1,9}", first[0]):
        raise table.damaged("does not begin with the number of images and the attributes' names")
    table.check_names(names)
    attributes, count = {}, 0
    for image, *values in rows:
        count += 1
        if len(values) != len(names) or not set(values) <= {"-1", "1"}:
            raise table.damaged(f"does not give {image[:60]} {len(names)} values of -1 or 1")
        table.keep(image, len(names))
        attributes[image] = tuple(int(value == "1") for value in values)
    if count != int(first[0]):
        raise table.damaged(
            f"has {count:,} of the {int(first[0]):,} images that its first line states"
        )
    return names, attributes


def read_mapping(path: Path) -> dict[int, str]:
    """Returns the CelebA image of each CelebA-HQ image, from lines `idx orig_idx orig_file`."""
    mapping, table = {}, _Table(path)
    rows = table.rows()
    next(rows, None)  # the names of the columns
    for row in rows:
        if len(row) != 3 or not re.fullmatch(r"[0-9]{1,9}", row[0]):
            raise table.damaged(f"has the line {' '.join(row)[:60]!r}, not idx orig_idx orig_file")
        table.keep(row[2])
        mapping[int(row[0])] = row[2]
    if not mapping:
        raise table.damaged("names no images")
    return mapping


def read_csv(
    path: Path, wanted: Container[str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[int, ...]]]:
    """Returns the sorted values of each attribute, and the indices of each wanted image's values.

    The first row of the file names the attributes; each other row has the path of an image and its
    values. Rows of other images are not used.
    """
    table = _Table(path)
    rows = table.rows(as_csv=True)
    names = [name.strip() for name in next(rows, [])[1:]]
    if not names:
        raise InputError(
            f"{path} names no attributes: its first row must have a name for the image column"
            " and one for each attribute"
        )
    table.check_names(names)
    for name in names:
        allowed = re.fullmatch(r"\w[\w .-]*", name) and name not in RESERVED
        allowed = allowed and len(name.encode()) <= _MAX_NAME  # of a file, too
        if not allowed or names.count(name) > 1:
            raise InputError(
                f"{path} has an attribute named {name[:60]!r}: names consist of letters,"
                f" digits, spaces and _.-, at most {_MAX_NAME} bytes, occur once, and are not"
                f" {' or '.join(RESERVED)}"
            )

    # The values of each attribute, each kept once.
    known_values: dict[str, dict[str, str]] = {name: {} for name in names}
    # One tuple for all that are equal: of values, and in the end of their indices.
    combinations: dict[tuple[str, ...], Any] = {}
    images: dict[str, Any] = {}
    for image, *fields in rows:
        values = tuple(field.strip() for field in fields)
        if len(values) != len(names) or not all((image, *values)):
            raise InputError(
                f"{path} does not give {image[:60]!r} a value for each of {len(names)} names"
            )
        if image not in wanted:
            continue
        table.keep(image)
        for (name, known), value in zip(known_values.items(), values):
            if value not in known:
                table.keep(value)
                known[value] = value
            if len(known) > _MAX_VALUES:
                raise InputError(
                    f"{path} has more than {_MAX_VALUES} values of {name}: an attribute is a class"
                    f" of at most {_MAX_VALUES}; leave the column out"
                )
        values = tuple(known[value] for known, value in zip(known_values.values(), values))
        if values not in combinations:
            table.keep("", len(names))
        values = combinations.setdefault(values, values)
        if images.setdefault(image, values) != values:
            raise InputError(f"{path} has two rows for {image[:60]!r}, with other values: keep one")

    factors = {name: tuple(sorted(known, key=_natural)) for name, known in known_values.items()}
    indices = [{value: i for i, value in enumerate(ordered)} for ordered in factors.values()]
    for values in combinations:
        combinations[values] = tuple(index[value] for index, value in zip(indices, values))
    for image, values in images.items():  # in place: a copy would take as much memory again
        images[image] = combinations[values]
    return factors, images


def _natural(value: str) -> tuple[bool, int, str]:
    """Sort key: integers first, by value, then other values alphabetically."""
    number = re.fullmatch(r"-?\d{1,18}", value)  # longer ones are no class, and slow to convert
    return number is None, int(value) if number else 0, value
