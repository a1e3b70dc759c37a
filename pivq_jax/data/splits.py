"""Splits of images by a hash of their names."""

import collections
import hashlib
import os
from collections.abc import Sequence

from pivq_jax.data.shards import Entry

SPLITS = ("train", "validation", "test")


def in_splits(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Assigns entries to splits, see `assign_splits`, and orders each split by a hash of the names.

    Names are often sorted by their contents, as in folders of classes. By their hashes, the first
    images of a split are a random sample of it: the parents of samples, for example.

    Args:
        entries: the images.

    Returns:
        The entries of each split, in an order that depends on their names alone.
    """
    assigned = assign_splits([entry.file for entry in entries])
    splits: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    for entry in sorted(entries, key=lambda entry: _hash(entry.file)):
        splits[assigned[entry.file]].append(entry)
    return splits


def assign_splits(names: Sequence[str]) -> dict[str, str]:
    """Assigns files to splits by a hash of their names: 80 % train, 10 % validation, 10 % test.

    The split of a name does not depend on other names, except in very small sets: with at least
    three names, every split gets at least one.

    Args:
        names: file names, relative to the data set.

    Returns:
        The split (`train`, `validation` or `test`) of each name.
    """
    shares = {name: share(name) for name in names}
    splits = {
        name: "train" if share < 80 else "validation" if share < 90 else "test"
        for name, share in shares.items()
    }
    if len(splits) >= len(SPLITS):
        for split in SPLITS:
            counts = collections.Counter(splits.values())
            if not counts[split]:
                largest = max(SPLITS, key=lambda other: counts[other])
                moved = min(
                    (n for n in splits if splits[n] == largest), key=lambda n: (shares[n], n)
                )
                splits[moved] = split
    return splits


def share(name: str) -> int:
    """Returns a hash of a name, uniform in 0 to 99: below 80 train, below 90 validation, then test.

    Args:
        name: name of an image.
    """
    return int(_hash(name)[:8], 16) % 100


def _hash(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()
