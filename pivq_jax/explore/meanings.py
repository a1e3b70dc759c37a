"""What codebook entries tell: groups for colouring them, and a line of text for each."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from pivq_jax.evaluation.atlas import informative_codes
from pivq_jax.model import initial_codebook, squared_distances
from pivq_jax.sampling import CodeSpace

CLUSTERS = 8  # groups of entries where there are no labels; more colours are hard to tell apart


class Meanings(NamedTuple):
    """What each of the K codebook entries tells."""

    grouping: str  # 'factor' if groups are labelled factors, 'cluster' if clusters of entries
    groups: tuple[str, ...]  # names of the groups
    group: np.ndarray  # int [K], index in `groups`; -1: it tells nothing beyond chance
    value: tuple[str, ...]  # the value of the factor that an entry tells, or ''
    text: tuple[str, ...]  # one line about each entry, or ''
    share: np.ndarray  # f64 [K], fraction of images that contain the entry


def find_meanings(
    space: CodeSpace,
    codebook: jax.Array,
    codes: np.ndarray,
    labels: np.ndarray,
    factors: Mapping[str, Sequence[str]],
    seed: int,
) -> Meanings:
    """Attributes each entry to the factor that it tells most about, as the code atlas does.

    Without labels, entries are grouped by k-means on the codebook, from the seed. M may be 0.
    """
    size = space.codebook_size
    share = (space.multi_hot(codes) > 0).mean(0) if len(codes) else np.zeros(size)
    if not factors or not len(codes):
        return _clusters(codebook, share, seed)
    group, value, text = np.full(size, -1), [""] * size, [""] * size
    names = list(factors)
    for found in informative_codes(space, codes, labels, factors, size):
        group[found.code] = names.index(found.factor)
        value[found.code] = found.value
        text[found.code] = (
            f"{words(found.factor)}: {found.value} in {found.value_share:.0%} of images with it,"
            f" {found.value_share_of_all:.0%} of all"
        )
    groups = tuple(words(name) for name in names)
    return Meanings("factor", groups, group, tuple(value), tuple(text), share)


def _clusters(codebook: jax.Array, share: np.ndarray, seed: int) -> Meanings:
    count = min(CLUSTERS, len(codebook))
    centroids = jax.jit(initial_codebook, static_argnums=1)(codebook, count, jax.random.key(seed))
    group = np.asarray(squared_distances(codebook, centroids)).argmin(1)
    nothing = ("",) * len(codebook)
    names = tuple(f"cluster {i + 1}" for i in range(count))
    return Meanings("cluster", names, group, nothing, nothing, share)


def words(name: str) -> str:
    """Returns the name of a factor as text."""
    return name.replace("_", " ")
