"""Exact comparisons of Euclidean distances at the cost of float32 arithmetic.

A block of squared distances is computed by one float32 matrix product on the default device, with a
bound on its rounding error. Comparisons that the bound cannot decide (a handful of pairs in a
million) are repeated in float64 on the host.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

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


class Points(NamedTuple):
    """Feature vectors with a common vector subtracted; a pytree."""

    values: jax.Array  # f32 [M, F]; a NumPy array on the host
    norms: jax.Array  # f32 [M], squared lengths of `values`


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


def centred(x: np.ndarray, y: np.ndarray, names: str) -> tuple[Points, Points]:
    """Subtracts the mean of `y` from both, which tightens error bounds; `x` remains on the host."""
    if x.shape[1] != y.shape[1]:
        raise InputError(
            f"{names} have {x.shape[1]} and {y.shape[1]} features per image: "
            "take both from one network"
        )
    centre = y.mean(axis=0, dtype=np.float64).astype(np.float32)

    def points(features: np.ndarray) -> Points:
        values: Any = features - centre
        norms: Any = np.einsum("ij,ij->i", values, values, dtype=np.float64).astype(np.float32)
        return Points(values, norms)

    return points(x), jax.device_put(points(y))


def bounds(x: Points, y: Points) -> tuple[jax.Array, jax.Array]:
    """Lower and upper bounds of the squared distances of all pairs, each f32 [M, L].

    The error of a product summed in any order is at most F u times the sum of the absolute
    products, with u = 2^-24 (Higham 2002, section 3.1), and that sum is at most half the sum of the
    squared norms. The additional constants cover the rounding of the centring, of the norms and of
    the sums here, and matrix units that compose float32 from bfloat16 parts.
    """
    features = x.values.shape[1]
    contract = (((1,), (1,)), ((), ()))
    products = jax.lax.dot_general(x.values, y.values, contract, precision="highest")
    norms = x.norms[:, None] + y.norms
    error = 1.1 * ROUNDOFF * (features + 32) * norms + UNDERFLOW * (features + 32)
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


def row_blocks(rows: np.ndarray, columns: int, label: str) -> Iterator[np.ndarray]:
    """Yields row numbers in blocks whose distances to `columns` points fit into memory."""
    size = int(np.clip(BLOCK_SIZE // columns, 16, BLOCK_ROWS))
    with progress_bar(desc=label, total=len(rows), unit=" images", delay=5) as progress:
        for start in range(0, len(rows), size):
            block = rows[start : start + size]
            yield block
            progress.update(len(block))


@functools.partial(jax.jit, static_argnames="count")
def lowest(x: Points, y: Points, count: int) -> tuple[jax.Array, jax.Array]:
    """For each point of `x`, the points of `y` whose distances have the smallest lower bounds:
    rows of `y`, int32 [M, count], and the bounds, ascending.
    """
    # All bounds are returned: for the last one alone, XLA for CPU would sort complete rows, which
    # takes fifteen times as long.
    low, _ = bounds(x, y)
    negated, indices = jax.lax.top_k(-low, count)
    return indices, -negated
