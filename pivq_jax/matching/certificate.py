"""What every method shares: cleaning the input, completing a matching, certifying its cost."""

import jax
import jax.numpy as jnp

_INFINITE = 0x7F800000  # the bits of +inf


def prepare(cost: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Makes any float32 batch safe to solve.

    Args:
      cost: float32 [B, N, K].

    Returns:
      safe: float32 [B, N, K], scaled by a power of two (exact) so that finite entries are less
        than 2 in size and sums cannot overflow; a problem that holds NaN or -inf is all zeros.
      scale: float32 [B], what `safe` must be multiplied by to give `cost` back.
      valid: bool [B], False for a problem that holds NaN or -inf.
    """
    # One integer pass: with the sign bit off, NaN sorts above inf, and inf above all numbers.
    bits = jax.lax.bitcast_convert_type(cost, jnp.int32)
    size = jnp.where(bits == _INFINITE, 0, bits & 0x7FFFFFFF)  # +inf is welcome, -inf is not
    largest = jnp.max(size, axis=(-2, -1))
    valid = largest < _INFINITE
    exponent = jnp.where(valid, (largest >> 23) - 127, 0)
    # Two factors: 2^-exponent itself leaves the range of float32 for the smallest and largest cost.
    half = exponent // 2
    one = jnp.ones(cost.shape[:-2], jnp.float32)
    first, second = jnp.ldexp(one, -half), jnp.ldexp(one, half - exponent)
    safe = cost * first[..., None, None] * second[..., None, None]
    safe = jnp.where(valid[..., None, None], safe, 0.0)
    return safe, jnp.ldexp(one, exponent), valid


def complete(columns: jax.Array, num_columns: int) -> jax.Array:
    """Gives rows that have no column (-1) the free columns, in order. int32 [B, N] -> [B, N]."""

    def fill(columns):
        batch = columns.shape[0]
        index = jnp.arange(batch)[:, None]
        target = jnp.where(columns < 0, num_columns, columns)
        used = jnp.zeros((batch, num_columns), bool).at[index, target].set(True, mode="drop")
        free = jnp.argsort(used, axis=-1, stable=True).astype(jnp.int32)
        rank = jnp.cumsum(columns < 0, axis=-1) - 1
        spare = jnp.take_along_axis(free, jnp.clip(rank, 0, num_columns - 1), axis=-1)
        return jnp.where(columns < 0, spare, columns)

    return jax.lax.cond(jnp.any(columns < 0), fill, lambda columns: columns, columns)


def total(cost: jax.Array, columns: jax.Array) -> jax.Array:
    """Sum of the chosen entries. cost [..., N, K], columns int32 [..., N] -> [...]."""
    return jnp.sum(jnp.take_along_axis(cost, columns[..., None], axis=-1)[..., 0], axis=-1)


def certify(cost: jax.Array, columns: jax.Array, prices: jax.Array) -> jax.Array:
    """Bounds cost minus optimum by weak duality, whatever the prices are.

    With y_i = min_j (c_ij - p_j) the dual value sum y + sum p never exceeds the optimum, provided
    p <= 0 when some columns stay free. So the excess of the matching is at most
    sum_i (c_i,s(i) - p_s(i) - y_i) - sum of p over the free columns, where each term is >= 0.
    A term for the rounding of the differences is added, so that the bound holds for real numbers.

    Args:
      cost: float32 [B, N, K], as `prepare` leaves it.
      columns: int32 [B, N], distinct.
      prices: float32 [B, K], finite.

    Returns:
      float32 [B], never negative, or inf where a chosen pair is forbidden.
    """
    num_rows, num_columns = cost.shape[-2:]
    if num_rows < num_columns:
        prices = jnp.minimum(prices, 0.0)
    best = jnp.min(cost - prices[:, None, :], axis=-1)
    chosen_price = jnp.take_along_axis(prices, columns, axis=-1)
    chosen = jnp.take_along_axis(cost, columns[..., None], axis=-1)[..., 0] - chosen_price
    gap = jnp.sum(chosen - best, axis=-1)
    rounding = jnp.sum(jnp.abs(chosen) + jnp.abs(best), axis=-1)
    if num_rows < num_columns:
        # All prices are <= 0, so this difference is the sum over the columns left free; where it
        # cancels, its own rounding belongs to the bound.
        index = jnp.arange(cost.shape[0])[:, None]
        used = jnp.zeros(prices.shape, bool).at[index, columns].set(True)
        gap = gap - jnp.sum(jnp.where(used, 0.0, prices), axis=-1)
    # A difference is off by 2^-24 of itself at most, a sum of n terms >= 0 by n times that.
    unit = 2.0**-24
    gap = (gap + 2 * unit * rounding) * (1 + unit * (num_rows + num_columns))
    return jnp.where(jnp.isfinite(gap), gap, jnp.inf)
