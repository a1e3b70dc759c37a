"""The lists that official data sets bring, and tables of attributes: read and checked."""

import csv
import itertools
import re
import sys
from collections.abc import Container, Iterator
from pathlib import Path

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

    def split(self) -> Iterator[list[str]]:
        """Yields the fields of each nonempty line, between spaces."""
        for line in self._lines("utf-8"):
            self._length = 0
            if fields := line.split():
                yield fields

    def parse_csv(self) -> Iterator[list[str]]:
        """Yields the fields of each nonempty row, which in quotes may have several lines."""
        try:
            for row in csv.reader(self._lines("utf-8-sig")):
                self._length = 0
                if row:
                    yield [row[0], *(field.strip() for field in row[1:])]
        except csv.Error as error:
            raise InputError(f"cannot read {self._path}: {error}") from error

    def _lines(self, encoding: str) -> Iterator[str]:
        try:
            with self._path.open(encoding=encoding, newline="") as file:
                while line := file.readline(_MAX_LINE + 1):
                    self._length += len(line)  # of the row so far
                    if self._length > _MAX_LINE:
                        raise InputError(
                            f"{self._path} has a line of more than {_MAX_LINE:,} characters"
                        )
                    yield line
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {self._path}: {error}") from error

    def check_names(self, names: list[str]) -> None:
        if len(names) > _MAX_NAMES:
            raise InputError(
                f"{self._path} names {len(names):,} attributes, more than {_MAX_NAMES:,}"
            )

    def wrong(self, fields: list[str], wanted: str) -> InputError:
        """Returns the error of a line that is not as wanted."""
        line = " ".join(fields)[:60]
        return InputError(f"{self._path} has the line {line!r}, not {wanted}: download it again")

    def keep(self, text: str, numbers: int = 0) -> None:
        """Counts the bytes of a text and of a tuple of numbers that are kept."""
        self._left -= sys.getsizeof(text) + _PLACE + 8 * numbers
        if self._left < 0:
            raise InputError(
                f"{self._path} takes more than {_MAX_MEMORY:,} bytes of memory: give fewer images"
                " or attributes"
            )


def read_partition(path: Path) -> dict[str, str]:
    """Returns the split of each image, from lines such as `000001.jpg 0`."""
    partition, table = {}, _Table(path)
    for fields in table.split():
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise table.wrong(fields, "an image and 0, 1 or 2")
        table.keep(fields[0])
        partition[fields[0]] = SPLITS[int(fields[1])]
    for split in SPLITS:
        if split not in partition.values():
            raise InputError(f"{path} names no {split} image: download it again")
    return partition


def read_attributes(path: Path) -> tuple[list[str], dict[str, tuple[int, ...]]]:
    """Returns the attribute names, from the second line, and 0 or 1 for each, of each image."""
    table = _Table(path)
    lines = table.split()
    first, names = next(lines, []), next(lines, [])
    if not names or len(first) != 1 or not re.fullmatch(r"[0-9]{1,9}", first[0]):
        raise InputError(
            f"{path} does not begin with the number of images and the attributes' names: download"
            " it again"
        )
    table.check_names(names)
    attributes, rows = {}, 0
    for image, *values in lines:
        rows += 1
        if len(values) != len(names) or not set(values) <= {"-1", "1"}:
            raise InputError(
                f"{path} does not give {image[:60]} {len(names)} values of -1 or 1: download it"
                " again"
            )
        table.keep(image, len(names))
        attributes[image] = tuple(int(value == "1") for value in values)
    if rows != int(first[0]):
        raise InputError(
            f"{path} has {rows:,} of the {int(first[0]):,} images that its first line states:"
            " download it again"
        )
    return names, attributes


def read_mapping(path: Path) -> dict[int, str]:
    """Returns the CelebA image of each CelebA-HQ image, from lines `idx orig_idx orig_file`."""
    mapping, table = {}, _Table(path)
    for fields in itertools.islice(table.split(), 1, None):
        if len(fields) != 3 or not re.fullmatch(r"[0-9]{1,9}", fields[0]):
            raise table.wrong(fields, "`idx orig_idx orig_file`")
        table.keep(fields[2])
        mapping[int(fields[0])] = fields[2]
    if not mapping:
        raise InputError(f"{path} names no images: download it again")
    return mapping


def read_csv(
    path: Path, wanted: Container[str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[int, ...]]]:
    """Returns the sorted values of each attribute, and the indices of each wanted image's values.

    The first row of the file names the attributes; each other row has the path of an image and its
    values. Rows of other images are not used.
    """
    table = _Table(path)
    rows = table.parse_csv()
    _, *names = next(rows, [""])
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
    if not names:
        raise InputError(
            f"{path} names no attributes: its first row must have a name for the image column"
            " and one for each attribute"
        )

    # The place of each value of an attribute, in the order in which the file has them.
    known: list[dict[str, int]] = [{} for _ in names]
    combinations: dict[tuple[int, ...], tuple[int, ...]] = {}  # one tuple for all that are equal
    images: dict[str, tuple[int, ...]] = {}
    for image, *values in rows:
        if len(values) != len(names) or not all((image, *values)):
            raise InputError(
                f"{path} does not give {image[:60]!r} a value for each of {len(names)} names"
            )
        if image not in wanted:
            continue
        table.keep(image)
        for name, places, value in zip(names, known, values):
            if value not in places:
                table.keep(value)
                places[value] = len(places)
            if len(places) > _MAX_VALUES:
                raise InputError(
                    f"{path} has more than {_MAX_VALUES} values of {name}: an attribute is a class"
                    f" of at most {_MAX_VALUES}; leave the column out"
                )
        combined = tuple(places[value] for places, value in zip(known, values))
        if combined not in combinations:
            table.keep("", len(names))
        if images.setdefault(image, combinations.setdefault(combined, combined)) != combined:
            raise InputError(f"{path} has two rows for {image[:60]!r}, with other values: keep one")

    factors = {n: tuple(sorted(places, key=_natural)) for n, places in zip(names, known)}
    # The place among sorted values by the place in the file.
    orders = [[factors[name].index(v) for v in places] for name, places in zip(names, known)]
    for combined in combinations:
        combinations[combined] = tuple(order[place] for order, place in zip(orders, combined))
    for image, combined in images.items():
        images[image] = combinations[combined]
    return factors, images


def _natural(value: str) -> tuple[bool, int, str]:
    """Sort key: integers first, by value, then other values alphabetically."""
    number = re.fullmatch(r"-?\d{1,18}", value)  # longer ones are no class, and slow to convert
    return number is None, int(value) if number else 0, value
