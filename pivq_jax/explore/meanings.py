"""What codebook entries tell: groups for colouring them, and a line of text for each."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from pivq_jax.model import initial_codebook, squared_distances
from pivq_jax.sampling import CodeSpace, informative_codes

CLUSTERS = 8  # groups of entries where there are no labels; more colours are hard to tell apart


class Meanings(NamedTuple):
    """What codebook entries tell, as in the `Model` of page/backend.js."""

    grouping: str  # 'factor' if groups are labelled factors, 'cluster' if clusters of entries
    groups: list[str]  # their names
    entries: list[dict[str, Any]]  # K, each with its `group`, `value`, `text` and `share`


def find_meanings(
    space: CodeSpace,
    codebook: jax.Array,
    codes: np.ndarray,
    labels: np.ndarray,
    factors: Mapping[str, Sequence[str]],
    seed: int,
) -> Meanings:
    """Attributes each entry to the factor that it tells most about, as the code atlas does.

    Without labels, entries are grouped by k-means on the codebook, from the seed.
    """
    size = space.codebook_size
    share = np.bincount(space.occurrences(codes)[1], minlength=size) / len(codes)
    entries = [{"group": -1, "value": "", "text": "", "share": each} for each in share.tolist()]
    if not factors:
        count, key = min(CLUSTERS, size), jax.random.key(seed)
        centroids = jax.jit(initial_codebook, static_argnums=1)(codebook, count, key)
        nearest = np.asarray(squared_distances(codebook, centroids)).argmin(1)
        for entry, group in zip(entries, nearest.tolist(), strict=True):
            entry["group"] = group
        return Meanings("cluster", [f"cluster {i + 1}" for i in range(count)], entries)
    names = list(factors)
    for found in informative_codes(space, codes, labels, factors, size):
        entries[found.code] |= {
            "group": names.index(found.factor),
            "value": found.value,
            "text": f"{words(found.factor)}: {found.value} in {found.value_share:.0%} of images"
            f" with it, {found.value_share_of_all:.0%} of all",
        }
    return Meanings("factor", [words(name) for name in names], entries)


def words(name: str) -> str:
    """Returns the name of a factor as text."""
    return name.replace("_", " ")
