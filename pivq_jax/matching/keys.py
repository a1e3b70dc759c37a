"""Floats as integers that sort the same way.

XLA may reorder an integer minimum and so vectorises it; for a float minimum it must respect NaN.
On CPU the integer one is up to four times faster, and elsewhere it costs the same.
"""

import jax
import jax.numpy as jnp

DONE = 2**31 - 1
"""Above the key of every float: what is out of the running."""

INFINITE = 0x7F800000
"""The key of +inf."""


def to_key(values: jax.Array) -> jax.Array:
    """float32 (no NaN) -> int32 of the same order, in which -0.0 comes before 0.0."""
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def from_key(keys: jax.Array) -> jax.Array:
    """Inverse of `to_key`: int32 -> float32."""
    bits = keys ^ ((keys >> 31) & 0x7FFFFFFF)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
