"""Conversion of floats to integers of the same order.

XLA may reorder an integer minimum and therefore vectorizes it; a float minimum has to propagate
NaN. On CPU the integer minimum is up to four times faster, elsewhere it costs the same.
"""

import jax
import jax.numpy as jnp

DONE = 2**31 - 1  # larger than the key of every float: marks columns that are done
INFINITE = 0x7F800000  # the key, and the bit pattern, of +inf


def to_key(values: jax.Array) -> jax.Array:
    """Converts float32 without NaN to int32 of the same order; -0.0 sorts before 0.0."""
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def from_key(keys: jax.Array) -> jax.Array:
    """Inverse of `to_key`."""
    bits = keys ^ ((keys >> 31) & 0x7FFFFFFF)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
