"""Costs of any real type as float32, less what all matchings have in common.

Each of N <= K rows is matched exactly once. Subtracting a constant from a row therefore changes the
cost of every complete matching by that constant, and the optimal ones stay optimal; likewise for a
column if N = K. What is left is small where many digits are in the offsets, so float32 holds it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_LARGEST = 60  # the exponent of the largest cost in the result: sums of costs cannot overflow
# The relative error of a converted cost is 2^-24, and counts for the matching and for the optimum;
# twice that leaves room for the rounding of differences and of the sum.
ROUNDING = 2.0**-22


def is_exact(dtype: Any) -> bool:
    """Whether float32 holds all values of a dtype: costs of it are converted as they are."""
    return dtype == jnp.float32 or dtype.itemsize < 4


def to_float32(cost: Any, maximize: bool) -> tuple[jax.Array, jax.Array | float]:
    """Returns costs to minimize, float32, and the factor, [...] or 1, that scales them back.

    Costs [..., N, K] of NumPy are reduced by NumPy, as JAX cuts 64 bits to 32 by default. Of an
    `is_exact` dtype they are not reduced. Others are rounded after that, by at most 2^-24 of what
    is left of each; scaling by powers of two keeps those in the range of float32.
    """
    xp: Any = np
    if not isinstance(cost, np.ndarray):
        xp, cost = jnp, jax.lax.stop_gradient(cost)
    if is_exact(cost.dtype):
        exact = jnp.asarray(cost).astype(jnp.float32)
        return (-exact if maximize else exact), 1.0
    if jnp.issubdtype(cost.dtype, jnp.integer):
        return _reduce_integers(cost, maximize), 1.0
    cost = -cost if maximize else cost
    size = xp.where(xp.isfinite(cost), xp.abs(cost), 0.0)
    exponent = xp.frexp(xp.max(size, axis=(-2, -1)))[1]
    exponent = exponent - xp.clip(exponent, 0, _LARGEST)
    cost = xp.ldexp(cost, -exponent[..., None, None])
    for axis in (-1, -2) if cost.shape[-1] == cost.shape[-2] else (-1,):
        least = xp.min(cost, axis=axis, keepdims=True)
        cost = cost - xp.where(xp.isfinite(least), least, 0.0)
    one = jnp.ones((), jax.dtypes.canonicalize_dtype(np.float64))
    return jnp.asarray(cost.astype(np.float32)), jnp.ldexp(one, jnp.asarray(exponent))


def _reduce_integers(cost: Any, maximize: bool) -> jax.Array:
    """Differences to the least cost of a row are exact: those of signed integers fit unsigned."""
    unsigned = np.dtype(f"uint{8 * cost.dtype.itemsize}")
    if maximize:
        cost = (cost.max(axis=-1, keepdims=True) - cost).astype(unsigned)
    else:
        cost = (cost - cost.min(axis=-1, keepdims=True)).astype(unsigned)
    if cost.shape[-1] == cost.shape[-2]:
        cost = cost - cost.min(axis=-2, keepdims=True)
    return jnp.asarray(cost.astype(np.float32))
