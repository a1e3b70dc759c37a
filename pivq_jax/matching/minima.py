"""Minima with their places, found in one pass over the array where that is what costs.

On TPU and GPU a pass is bound by memory, so one reduction carries everything along. XLA on CPU
vectorises a plain minimum but not such a reduction, so there it is one pass for each result.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

_INF = np.float32(np.inf)
_LAST = np.int32(2**31 - 1)


def least(values: jax.Array, codes: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """The least value along an axis, and the least of the codes that stand where it is.

    Args:
      values: float32, no NaN.
      codes: int32 of the same shape.
      axis: not negative.

    Returns:
      float32 and int32, without the axis.
    """
    return jax.lax.platform_dependent(
        values,
        codes,
        cpu=functools.partial(_least_by_passes, axis=axis),
        default=functools.partial(_least_at_once, axis=axis),
    )


def least_two(values: jax.Array, codes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The two least values along the last axis, and the code of the least.

    Args:
      values: float32 [..., K], no NaN.
      codes: int32 [..., K], all distinct along the axis. Of equal values the one with the least
        code comes first.

    Returns:
      least and second least (inf for K = 1): float32 [...]; code: int32 [...].
    """
    return jax.lax.platform_dependent(
        values, codes, cpu=_least_two_by_passes, default=_least_two_at_once
    )


def _least_by_passes(values, codes, axis):
    low = jnp.min(values, axis=axis, keepdims=True)
    return jnp.squeeze(low, axis), jnp.min(jnp.where(values == low, codes, _LAST), axis=axis)


def _least_at_once(values, codes, axis):
    def merge(a, b):
        (low_a, code_a), (low_b, code_b) = a, b
        return jnp.minimum(low_a, low_b), _code_of_lower(low_a, code_a, low_b, code_b)

    return jax.lax.reduce((values, codes), (_INF, _LAST), merge, (axis,))


def _least_two_by_passes(values, codes):
    low, code = _least_by_passes(values, codes, values.ndim - 1)
    rest = jnp.where(codes == code[..., None], _INF, values)
    return low, jnp.min(rest, axis=-1), code


def _least_two_at_once(values, codes):
    def merge(a, b):
        (low_a, next_a, code_a), (low_b, next_b, code_b) = a, b
        second = jnp.minimum(jnp.maximum(low_a, low_b), jnp.minimum(next_a, next_b))
        code = _code_of_lower(low_a, code_a, low_b, code_b)
        return jnp.minimum(low_a, low_b), second, code

    infinite = jnp.full_like(values, _INF)
    start = (_INF, _INF, _LAST)
    return jax.lax.reduce((values, infinite, codes), start, merge, (values.ndim - 1,))


def _code_of_lower(low_a, code_a, low_b, code_b):
    tied = jnp.minimum(code_a, code_b)
    return jnp.where(low_a < low_b, code_a, jnp.where(low_b < low_a, code_b, tied))
