"""Exact nearest neighbours of images by features, for example to detect copies.

A block of squared distances is computed by one float32 matrix product on the default device, with a
bound on its rounding error. Comparisons that the bound cannot decide (a handful of pairs in a
million) are repeated in float64 on the host.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from pivq_jax.common.errors import InputError
from pivq_jax.common.output import progress_bar

# Maximum numbers of entries and rows of one block of distances.
BLOCK_SIZE, BLOCK_ROWS = 2**22, 256
# Number of features gathered at once for a recheck; fits into a cache.
RECHECK_SIZE = 2**17
# Squares of larger values approach the limit of float32.
LARGEST = 1e15
# Unit roundoff of float32, and a bound on the underflow of any product or sum in this module.
ROUNDOFF, UNDERFLOW = 2.0**-24, 1e-37


class Neighbours(NamedTuple):
    """The k nearest points of each query, nearest first."""

    indices: np.ndarray  # int32 [M, k], rows of the pool
    distances: np.ndarray  # f32 [M, k], Euclidean distances


def nearest_neighbours(queries: npt.ArrayLike, pool: npt.ArrayLike, k: int) -> Neighbours:
    """Finds the k nearest points of a pool [L, F] for each query [M, F], by Euclidean distance.

    Memory use grows with (M + L) F, not with M L. Neighbours at equal distance are ordered by row.
    A query that is also in the pool is its own neighbour at distance 0.
    """
    queries, pool = as_feature_pair(queries, pool, "queries", "the pool's features")
    points, targets = centred(queries, pool)
    if not 1 <= k <= len(pool):
        raise InputError(f"k = {k} of a pool of {len(pool)} images: use 1 to {len(pool)}")
    indices, squared = np.empty((len(queries), k), np.int32), np.empty((len(queries), k))
    for rows in row_blocks(len(queries), len(pool), "nearest neighbours"):
        near, first = map(np.array, _candidates(points[rows], targets, k))
        pairs = np.repeat(np.arange(len(near)), k), first.ravel()
        copied = ~squared_distances(queries[rows], pool, *pairs).reshape(first.shape).any(1)
        near[copied] = False  # but for the first k copies: a collapsed model has thousands
        np.put_along_axis(near, first, True, axis=1)
        places, columns = np.nonzero(near)
        distances = squared_distances(queries[rows], pool, places, columns)
        order = np.lexsort(
            (distances, places)
        )  # stable: equally far ones remain in order of columns
        starts = np.searchsorted(places, np.arange(len(near)))
        nearest = order[starts[:, None] + np.arange(k)]
        indices[rows], squared[rows] = columns[nearest], distances[nearest]
    return Neighbours(indices, rounded_roots(squared))


@functools.partial(jax.jit, static_argnames="k")
def _candidates(x: jax.Array, y: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Which points of `y` may be among the k nearest to each of `x`, bool [M, L], and the k with
    the least upper bounds, int32 [M, k].
    """
    low, high = bounds(x, y)
    # The least of all k: for the last one alone, XLA for CPU would sort complete rows, which takes
    # fifteen times as long.
    least, first = jax.lax.top_k(-high, k)
    return low <= -jnp.min(least, axis=1, keepdims=True), first


def as_features(features: npt.ArrayLike, name: str, least: int = 1) -> np.ndarray:
    """Returns features as float32 [M, F] on the host, of `least` images, no value beyond 1e15."""
    array = np.asarray(features)
    if array.ndim != 2 or array.shape[1] == 0:
        raise InputError(f"{name} have shape {array.shape}: give [images, features]")
    if array.dtype.kind not in "iuf" and array.dtype != jnp.bfloat16:
        raise InputError(f"{name} have dtype {array.dtype}: give float32")
    if len(array) < least:
        raise InputError(f"{name} are of {len(array)} images: at least {least} are needed")
    array = np.ascontiguousarray(array, np.float32)
    fine = np.max(np.abs(array), axis=1) <= LARGEST  # also False for NaN
    if not np.all(fine):
        raise InputError(
            f"{name} of image {np.argmin(fine)} hold NaN, infinity or values beyond {LARGEST:g}: "
            "look at that image and at the feature network"
        )
    return array


def as_feature_pair(
    x: npt.ArrayLike, y: npt.ArrayLike, x_name: str, y_name: str, least: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """As `as_features`, for two sets of features of one network."""
    x, y = as_features(x, x_name, least), as_features(y, y_name, least)
    if x.shape[1] != y.shape[1]:
        raise InputError(
            f"{x_name} and {y_name} have {x.shape[1]} and {y.shape[1]} numbers per image: take both"
            " from one network"
        )
    return x, y


def centred(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, jax.Array]:
    """Subtracts the mean of `y` from both, which tightens error bounds; `x` remains on the host."""
    centre = y.mean(axis=0, dtype=np.float64).astype(np.float32)
    return x - centre, jax.device_put(y - centre)


def bounds(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Lower and upper bounds of the squared distances of all pairs, each f32 [M, L].

    A product summed in any order errs by at most F u times the sum of the absolute products, u =
    2^-24 (Higham 2002, section 3.1): F u times both squared norms, and no more for twice the
    product of two points. The other constants cover the rounding of the centring and of the sums
    here, and matrix units that compose float32 from bfloat16 parts.
    """
    products = jnp.inner(x, y, precision="highest")
    norms = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1)
    terms = 2 * x.shape[1] + 32
    error = 1.1 * ROUNDOFF * terms * norms + UNDERFLOW * terms
    squared = norms - 2 * products
    return squared - error, squared + error


def squared_distances(
    x: np.ndarray, y: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Squared distances of pairs, rows of `x` and `columns` of `y`, in float64 from float32."""
    result = np.empty(len(rows))
    step = max(1, RECHECK_SIZE // x.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        difference = np.subtract(x[rows[part]], y[columns[part]], dtype=np.float64)
        np.einsum("ij,ij->i", difference, difference, out=result[part])
    return result


def rounded_roots(squared: np.ndarray) -> np.ndarray:
    """Roots of f64, as f32, rounded like scikit-learn's: before and after taking the root."""
    return np.sqrt(squared.astype(np.float32))


def row_blocks(rows: int, columns: int, label: str) -> Iterator[slice]:
    """Yields all rows in blocks whose distances to `columns` points fit into memory."""
    size = int(np.clip(BLOCK_SIZE // columns, 16, BLOCK_ROWS))
    with progress_bar(desc=label, total=rows, unit=" images", delay=5) as progress:
        for start in range(0, rows, size):
            stop = min(start + size, rows)
            yield slice(start, stop)
            progress.update(stop - start)
