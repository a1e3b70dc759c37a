"""Exact comparisons of Euclidean distances at the price of float32 ones.

A block of squared distances comes from one float32 matrix product on the default device, with a
bound on its rounding error. What the bound cannot decide (a handful of pairs in a million) is
computed again in float64 on the host.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from pivq_jax.common.errors import InputError

# Entries of one block of distances, and the most rows that it has.
BLOCK_SIZE, BLOCK_ROWS = 2**22, 256
# Features of pairs that are gathered at once for a recheck: what fits a cache.
RECHECK_SIZE = 2**17
# Squares of larger values come near the end of float32.
LARGEST = 1e15
# Unit roundoff of float32, and more than what one product or sum of this module loses to underflow.
ROUNDOFF, UNDERFLOW = 2.0**-24, 1e-37


class Points(NamedTuple):
    """Feature vectors with a common vector subtracted: a pytree that a jitted function takes."""

    values: jax.Array  # f32 [M, F]; on the host a NumPy array
    norms: jax.Array  # f32 [M], squared lengths of `values`


def as_features(features: npt.ArrayLike, name: str, least: int = 1) -> np.ndarray:
    """Checks features and returns them as f32 [M, F] on the host.

    Raises:
        InputError: not [M, F], fewer than `least` rows, no columns, not numbers, NaN, infinity, or
            values beyond 1e15.
    """
    array = np.asarray(features)
    if array.ndim != 2 or array.shape[1] == 0:
        raise InputError(f"{name} have shape {array.shape}: give [images, features]")
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == jnp.bfloat16):
        raise InputError(f"{name} have dtype {array.dtype}: give float32")
    if np.iscomplexobj(array):
        raise InputError(f"{name} are complex: give float32")
    if len(array) < least:
        raise InputError(f"{name} are of {len(array)} images: at least {least} are needed")
    array = np.ascontiguousarray(array, np.float32)
    largest = np.max(np.abs(array), axis=1)
    if not np.all(largest <= LARGEST):  # also where it is NaN
        row = int(np.argmin(largest <= LARGEST))
        raise InputError(
            f"{name} of image {row} hold NaN, infinity or values beyond {LARGEST:g}: "
            "look at that image and at the feature network"
        )
    return array


def check_alike(first: np.ndarray, second: np.ndarray, names: str) -> None:
    """Refuses features of different networks: `names` says which two sets they are."""
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"{names} have {first.shape[1]} and {second.shape[1]} features an image: "
            "take both from one network"
        )


def centred(features: np.ndarray, centre: np.ndarray) -> Points:
    """Subtracts one vector f32 [F] from all rows: distances stay, and error bounds shrink."""
    values: Any = features - centre
    norms: Any = np.einsum("ij,ij->i", values, values, dtype=np.float64).astype(np.float32)
    return Points(values, norms)


def bounds(x: Points, y: Points) -> tuple[jax.Array, jax.Array]:
    """Squared distances of all pairs from below and above: two f32 [M, L].

    |error| <= F u sum |x_i y_i| for a product summed in any order, u = 2**-24 (Higham 2002,
    section 3.1), and sum |x_i y_i| <= (|x|**2 + |y|**2) / 2. The constants on top cover the
    rounding of the centring, of the norms and of the sums here, and a matrix unit that builds
    float32 from bfloat16 parts.
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
    """|x[rows] - y[columns]|**2, one for each pair, from f32 features in float64: f64 [P]."""
    result = np.empty(len(rows))
    step = max(1, RECHECK_SIZE // x.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        difference = np.subtract(x[rows[part]], y[columns[part]], dtype=np.float64)
        np.einsum("ij,ij->i", difference, difference, out=result[part])
    return result


def rounded_roots(squared: np.ndarray) -> np.ndarray:
    """f64 -> f32 distances, rounded where scikit-learn rounds: before the root and after it."""
    return np.sqrt(squared.astype(np.float32))


def row_blocks(rows: np.ndarray, columns: int, label: str) -> Iterator[np.ndarray]:
    """The row numbers in blocks whose distances to `columns` points are a bounded amount.

    A progress bar on stderr appears after five seconds.
    """
    size = int(np.clip(BLOCK_SIZE // columns, 16, BLOCK_ROWS))
    interval = 0.1 if sys.stderr.isatty() else 10.0
    with tqdm(
        desc=label, total=len(rows), unit=" images", delay=5, mininterval=interval
    ) as progress:
        for start in range(0, len(rows), size):
            block = rows[start : start + size]
            yield block
            progress.update(len(block))


def block_of(points: Points, rows: np.ndarray) -> Points:
    """Some of the points."""
    return Points(points.values[rows], points.norms[rows])


@functools.partial(jax.jit, static_argnames="count")
def lowest(x: Points, y: Points, count: int) -> tuple[jax.Array, jax.Array]:
    """The `count` points y whose squared distances have the smallest lower bounds, for each x.

    Returns:
        int32 [M, count], and f32 [M, count] their lower bounds, ascending. They are not reduced
        to the last one here: XLA for CPU then sorts whole rows, which takes fifteen times as long.
    """
    low, _ = bounds(x, y)
    negated, indices = jax.lax.top_k(-low, count)
    return indices, -negated
