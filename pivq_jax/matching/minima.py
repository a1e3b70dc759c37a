"""Minima that are fast on every platform, with their positions or as integer keys.

On TPU and GPU a pass is bound by memory bandwidth, so a single reduction computes all results. XLA
for CPU vectorizes a plain minimum but not such a reduction, so there each result takes one pass.
On a CPU, minima of integers are up to four times faster than those of floats, as XLA may reorder
them, while a minimum of floats has to propagate NaN. Elsewhere both cost the same.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

DONE = 2**31 - 1  # larger than the key of every float: marks columns that are done
INFINITE = 0x7F800000  # the key, and the bit pattern, of +inf

_INF = np.float32(np.inf)
_LAST = np.int32(2**31 - 1)


def to_key(values: jax.Array) -> jax.Array:
    """Converts float32 without NaN to int32 of the same order; -0.0 sorts before 0.0."""
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def from_key(keys: jax.Array) -> jax.Array:
    """Inverse of `to_key`."""
    bits = keys ^ ((keys >> 31) & 0x7FFFFFFF)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def least(values: jax.Array, codes: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Returns the minimum along an axis, and the smallest code among the positions that attain it.

    Values are float32 without NaN, codes int32 of the same shape; `axis` is nonnegative.
    """
    return jax.lax.platform_dependent(
        values,
        codes,
        cpu=functools.partial(_least_by_passes, axis=axis),
        default=functools.partial(_least_at_once, axis=axis),
    )


def least_two(values: jax.Array, codes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the two smallest values along the last axis, and the code of the smallest.

    Values are float32 without NaN; codes are int32, distinct along the axis, and the smaller one
    wins a tie. The second value is inf if K = 1.
    """
    return jax.lax.platform_dependent(
        values, codes, cpu=_least_two_by_passes, default=_least_two_at_once
    )


def _least_by_passes(values: jax.Array, codes: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    low = jnp.min(values, axis=axis, keepdims=True)
    return jnp.squeeze(low, axis), jnp.min(jnp.where(values == low, codes, _LAST), axis=axis)


def _least_at_once(values: jax.Array, codes: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    def merge(a: tuple[jax.Array, ...], b: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        (low_a, code_a), (low_b, code_b) = a, b
        return jnp.minimum(low_a, low_b), _code_of_lower(low_a, code_a, low_b, code_b)

    return jax.lax.reduce((values, codes), (_INF, _LAST), merge, (axis,))


def _least_two_by_passes(
    values: jax.Array, codes: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    low, code = _least_by_passes(values, codes, values.ndim - 1)
    rest = jnp.where(codes == code[..., None], _INF, values)
    return low, jnp.min(rest, axis=-1), code


def _least_two_at_once(
    values: jax.Array, codes: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    def merge(a: tuple[jax.Array, ...], b: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        (low_a, next_a, code_a), (low_b, next_b, code_b) = a, b
        second = jnp.minimum(jnp.maximum(low_a, low_b), jnp.minimum(next_a, next_b))
        code = _code_of_lower(low_a, code_a, low_b, code_b)
        return jnp.minimum(low_a, low_b), second, code

    infinite = jnp.full_like(values, _INF)
    start = (_INF, _INF, _LAST)
    return jax.lax.reduce((values, infinite, codes), start, merge, (values.ndim - 1,))


def _code_of_lower(
    low_a: jax.Array, code_a: jax.Array, low_b: jax.Array, code_b: jax.Array
) -> jax.Array:
    tied = jnp.minimum(code_a, code_b)
    return jnp.where(low_a < low_b, code_a, jnp.where(low_b < low_a, code_b, tied))
