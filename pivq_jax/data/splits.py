"""Splits of images by a hash of their names."""

import collections
import hashlib
import os
import re
from collections.abc import Callable, Sequence

from absl import logging

from pivq_jax.common.errors import InputError, brief
from pivq_jax.data.builder import Entry

SPLITS = ("train", "validation", "test")


def in_splits(entries: Sequence[Entry], group: str) -> dict[str, list[Entry]]:
    """Assigns entries to splits, those of a group to one: see `groups_by` and `assign_splits`.

    Names are often sorted by contents, so each split is ordered by a hash of them.
    """
    group_of = groups_by(group)
    groups = {entry.file: group_of(entry.file) for entry in entries}
    sizes = collections.Counter(groups.values())
    if len(sizes) < len(SPLITS):
        raise InputError(
            f"group is {group!r}, by which the {len(entries):,} images are in {len(sizes)} group(s)"
            f" ({min(sizes)[:60]!r}, ...): a data set needs at least 3, one per split. Give another"
            " expression, or an empty one: then each image is a group of its own"
        )
    if group and (alone := sum(file == name for file, name in groups.items())):
        logging.warning(
            f"group {group!r} does not match {alone:,} of {len(entries):,} images, each of which is"
            " a group of its own"
        )
    name, most = sizes.most_common(1)[0]
    if group and most > max(len(entries) / 20, 50):  # IMG_0001.jpg is of a camera, of no person
        logging.warning(
            f"group {group!r} puts {most:,} of {len(entries):,} images into one group,"
            f" {name[:60]!r}: change it if these do not belong together"
        )
    assigned = assign_splits([*sizes])
    splits: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    for entry in sorted(entries, key=lambda entry: _hash(entry.file)):
        splits[assigned[groups[entry.file]]].append(entry)
    return splits


def groups_by(pattern: str) -> Callable[[str], str]:
    """Returns the function from a file to the group that a regular expression finds in its name.

    What its first pair of parentheses matches in the whole path without its suffix is the group; a
    file that it does not match is a group of its own, as all are if it is empty.

    >>> group = groups_by("(.*)_[0-9]+")
    >>> group("Ada_Lovelace_0001.jpg"), group("Ada_Lovelace_0002.png"), group("unknown.jpg")
    ('Ada_Lovelace', 'Ada_Lovelace', 'unknown.jpg')
    """
    if not pattern:
        return lambda file: file
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(
            f"group is {pattern!r}, which is no regular expression ({brief(error)}): an example is"
            " '(.*)_[0-9]+', for names such as Ada_Lovelace_0001.jpg"
        ) from error
    if not compiled.groups:
        raise InputError(
            f"group is {pattern!r}: it must have a pair of parentheses around what names the"
            " group, as '(.*)_[0-9]+' has"
        )

    def group_of(file: str) -> str:
        match = compiled.fullmatch(os.path.splitext(file)[0])
        return (match and match[1]) or file

    return group_of


def assign_splits(names: Sequence[str]) -> dict[str, str]:
    """Assigns three names or more to splits by a hash: 80 % train, 10 % validation, 10 % test.

    Every split gets one.
    """
    splits = {name: split_of(name) for name in names}
    for split in SPLITS:
        counts = collections.Counter(splits.values())
        if not counts[split]:
            largest = max(SPLITS, key=lambda other: counts[other])
            movable = [name for name in splits if splits[name] == largest]
            splits[min(movable, key=lambda name: (_share(name), name))] = split
    return splits


def split_of(name: str) -> str:
    """Returns the split of a name, whatever others there are."""
    share = _share(name)
    return "train" if share < 80 else "validation" if share < 90 else "test"


def _share(name: str) -> int:
    """A hash of a name, uniform in 0 to 99."""
    return int(_hash(name)[:8], 16) % 100


def _hash(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()
