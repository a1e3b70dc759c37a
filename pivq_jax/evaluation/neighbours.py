"""Exact nearest neighbours of images, by features or by codes, for example to detect copies."""

from typing import NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from pivq_jax.common.errors import InputError
from pivq_jax.evaluation import distances
from pivq_jax.sampling import CodeSpace

__all__ = ["Neighbours", "nearest_neighbours"]

# Number of candidates in addition to k; the float32 bounds rarely require more.
SPARE = 6


class Neighbours(NamedTuple):
    """The k nearest points of each query, nearest first."""

    indices: np.ndarray  # int32 [M, k], rows of the pool
    distances: np.ndarray  # f32 [M, k], Euclidean distances


def nearest_neighbours(queries: npt.ArrayLike, pool: npt.ArrayLike, k: int) -> Neighbours:
    """Finds the k nearest points of a pool [L, F] for each query [M, F], by Euclidean distance.

    Both are f32 features of one network, and 1 <= k <= L. Memory use grows with (M + L) F, not with
    M L. Neighbours at equal distance are ordered by row; if more than k are equally near, it is
    unspecified which are returned. A query that is also in the pool is its own neighbour at
    distance 0. Raises InputError if features are invalid (see `distances.as_features`) or have
    different F, or k is out of range.
    """
    queries = distances.as_features(queries, "queries")
    pool = distances.as_features(pool, "the pool's features")
    points, targets = distances.centred(queries, pool, "queries and pool")
    if not 1 <= k <= len(pool):
        raise InputError(f"k = {k} of a pool of {len(pool)} images: use 1 to {len(pool)}")

    shape = len(queries), k
    result = Neighbours(np.empty(shape, np.int32), np.empty(shape, np.float32))
    unsettled, count = np.arange(len(queries)), min(len(pool), k + SPARE)
    while unsettled.size:
        left = []
        for rows in distances.row_blocks(unsettled, len(pool), "nearest neighbours"):
            block = distances.Points(*(part[rows] for part in points))
            columns, low = jax.device_get(distances.lowest(block, targets, count))
            pairs = np.repeat(rows, count), columns.ravel()
            squared = distances.squared_distances(queries, pool, *pairs).reshape(columns.shape)
            order = np.lexsort((columns, squared))[:, :k]
            squared = np.take_along_axis(squared, order, axis=1)
            result.indices[rows] = np.take_along_axis(columns, order, axis=1)
            result.distances[rows] = distances.rounded_roots(squared)
            if count < len(pool):
                left.append(rows[squared[:, -1] > np.maximum(low[:, -1], 0.0)])
        # Repeats the search with more candidates where other points may be nearer.
        unsettled, count = np.concatenate([*left, unsettled[:0]]), min(len(pool), 4 * count)
    return result


def nearest_sets(
    space: CodeSpace, sets: np.ndarray, pool: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the set of a pool that has most codes in common with each: its row, and how many."""
    common = space.multi_hot(sets) @ space.multi_hot(pool).T
    nearest = common.argmax(1)
    return nearest, common[np.arange(len(sets)), nearest].astype(np.int64)
