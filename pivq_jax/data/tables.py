"""The lists that official data sets bring, and tables of attributes: read and checked."""

import collections
import contextlib
import csv
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from pivq_jax.common.errors import InputError
from pivq_jax.data.records import RESERVED
from pivq_jax.data.splits import SPLITS

# An attribute with more values is assumed to be a mistake, such as a column of numbers.
_MAX_VALUES = 256


# What a list may take in memory: characters of a line, attributes, and bytes of all that is kept.
_MAX_LINE = 2**18
_MAX_NAMES = 1_024
_MAX_MEMORY = 208 * 2**20
_PLACE = 80  # bytes of a place in a dictionary, about


class _Kept:
    """Counts the bytes of what is kept of a list, and refuses too many."""

    def __init__(self, path: Path) -> None:
        self._path, self._left = path, _MAX_MEMORY

    def add(self, text: str, numbers: int = 0) -> None:
        self._left -= sys.getsizeof(text) + _PLACE + 8 * numbers
        if self._left < 0:
            raise InputError(
                f"{self._path} takes more than {_MAX_MEMORY:,} bytes of memory: give fewer images"
                " or attributes"
            )


class _Text:
    """The lines of a text file, each of a limited length."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path, self._file, self.row = path, file, 0

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(_MAX_LINE + 1):
            self.row += len(line)  # a row in quotes may have several lines: `row` is set to 0 after
            if self.row > _MAX_LINE:
                raise InputError(f"{self._path} has a line of more than {_MAX_LINE:,} characters")
            yield line


@contextlib.contextmanager
def _opened(path: Path, **options: Any) -> Iterator[_Text]:
    try:
        with path.open(**options) as file:
            yield _Text(path, file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def _lines(path: Path) -> Iterator[list[str]]:
    """Yields the fields of each nonempty line."""
    with _opened(path) as text:
        for line in text:
            text.row = 0
            if fields := line.split():
                yield fields


def read_partition(path: Path) -> dict[str, str]:
    """Returns the split of each image, from lines such as `000001.jpg 0`."""
    partition, kept = {}, _Kept(path)
    for fields in _lines(path):
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise InputError(
                f"{path} has the line {' '.join(fields)[:60]!r}, not an image and 0, 1 or 2:"
                " download it again"
            )
        kept.add(fields[0])
        partition[fields[0]] = SPLITS[int(fields[1])]
    for split in SPLITS:
        if split not in partition.values():
            raise InputError(f"{path} names no {split} image: download it again")
    return partition


def read_attributes(path: Path) -> tuple[list[str], dict[str, tuple[int, ...]]]:
    """Returns the attribute names and, for each image, 0 or 1 per attribute.

    The first line is the number of images and the second contains the names.
    """
    lines, kept = _lines(path), _Kept(path)
    first, names = next(lines, []), next(lines, [])
    if not names or len(first) != 1 or not re.fullmatch(r"[0-9]{1,9}", first[0]):
        raise InputError(
            f"{path} does not begin with the number of images and the attributes' names: download"
            " it again"
        )
    _check_count(path, len(names))
    attributes, rows = {}, 0
    for image, *values in lines:
        rows += 1
        if len(values) != len(names) or not set(values) <= {"-1", "1"}:
            raise InputError(
                f"{path} does not give {image[:60]} {len(names)} values of -1 or 1: download it"
                " again"
            )
        kept.add(image, len(names))
        attributes[image] = tuple(int(value == "1") for value in values)
    if rows != int(first[0]):
        raise InputError(
            f"{path} has {rows:,} of the {int(first[0]):,} images that its first line states:"
            " download it again"
        )
    return names, attributes


def read_mapping(path: Path) -> dict[int, str]:
    """Returns the CelebA image of each CelebA-HQ image, from lines `idx orig_idx orig_file`."""
    mapping, kept = {}, _Kept(path)
    for fields in itertools.islice(_lines(path), 1, None):
        if len(fields) != 3 or not re.fullmatch(r"[0-9]{1,9}", fields[0]):
            raise InputError(
                f"{path} has the line {' '.join(fields)[:60]!r}, not `idx orig_idx orig_file`:"
                " download it again"
            )
        kept.add(fields[2])
        mapping[int(fields[0])] = fields[2]
    if not mapping:
        raise InputError(f"{path} names no images: download it again")
    return mapping


def read_csv(path: Path) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[int, ...]]]:
    """Returns the sorted values of each attribute, and the indices of each image's values.

    The first row of the file names the attributes; each other row has the path of an image and its
    values.
    """
    with _opened(path, newline="", encoding="utf-8-sig") as text:
        rows = _rows(text)
        _, *names = next(rows, [""])
        _check_count(path, len(names))
        counts = collections.Counter(names)
        for name in names:
            if not re.fullmatch(r"\w[\w .-]*", name) or name in RESERVED or counts[name] > 1:
                raise InputError(
                    f"{path} has an attribute named {name[:60]!r}: names consist of letters,"
                    f" digits, spaces and _.-, occur once, and are not {' or '.join(RESERVED)}"
                )
        if not names:
            raise InputError(
                f"{path} names no attributes: its first row must have a name for the image column"
                " and one for each attribute"
            )
        return _read_rows(path, names, rows)


def _rows(text: _Text) -> Iterator[list[str]]:
    for row in csv.reader(iter(text)):
        text.row = 0
        if row:
            yield row


def _check_count(path: Path, count: int) -> None:
    if count > _MAX_NAMES:
        raise InputError(f"{path} names {count:,} attributes, more than {_MAX_NAMES:,}")


def _read_rows(
    path: Path, names: list[str], rows: Iterator[list[str]]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[int, ...]]]:
    """Reads the values of `read_csv`, row by row."""
    kept = _Kept(path)
    # The place of each value in the order of the file, one tuple for all images with the same.
    places: list[dict[str, int]] = [{} for _ in names]
    combinations: dict[tuple[int, ...], tuple[int, ...]] = {}
    indices: dict[str, tuple[int, ...]] = {}
    for row in rows:
        image, *given = row
        if len(given) != len(names) or not all(row):
            raise InputError(
                f"{path} does not give {image[:60]!r} a value for each of {len(names)} names"
            )
        kept.add(image)
        for name, known, value in zip(names, places, given):
            if value not in known:
                kept.add(value)
                known[value] = len(known)
            if len(known) > _MAX_VALUES:
                raise InputError(
                    f"{path} has more than {_MAX_VALUES} values of {name}: an attribute is a class"
                    f" of at most {_MAX_VALUES}; leave the column out"
                )
        combined = tuple(known[value] for known, value in zip(places, given))
        if combined not in combinations:
            kept.add("", len(names))
            combinations[combined] = combined
        indices[image] = combinations[combined]
    values, orders = {}, []
    for name, known in zip(names, places):
        values[name] = tuple(sorted(known, key=_natural))
        sorted_places = {value: i for i, value in enumerate(values[name])}
        orders.append([sorted_places[value] for value in known])
    for combined in combinations:
        ordered = tuple(order[place] for order, place in zip(orders, combined))
        combinations[combined] = ordered
    for image, combined in indices.items():
        indices[image] = combinations[combined]
    return values, indices


def _natural(value: str) -> tuple[bool, int, str]:
    """Sort key: integers first, by value, then other values alphabetically."""
    number = re.fullmatch(r"-?\d{1,18}", value)  # longer ones are no class, and slow to convert
    return number is None, int(value) if number else 0, value
