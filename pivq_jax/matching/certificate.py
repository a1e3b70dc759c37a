"""Steps shared by all methods: sanitizing the input, completing a matching, bounding its gap."""

import jax
import jax.numpy as jnp

from pivq_jax.matching.minima import INFINITE


def prepare(cost: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns cost float32 [B, N, K], safe to solve, the factors to scale it back, and validity.

    It is scaled by a power of two so that sums cannot overflow, and no further: beside a huge cost,
    which marks a pair to avoid, others would be 0. With NaN or -inf it is all zeros, and not valid.
    """
    # One integer pass: without the sign bit, NaN sorts above inf, and inf above all finite numbers.
    bits = jax.lax.bitcast_convert_type(cost, jnp.int32)
    size = jnp.where(bits == INFINITE, 0, bits & 0x7FFFFFFF)  # +inf is allowed, -inf is not
    largest = jnp.max(size, axis=(-2, -1))
    valid = largest < INFINITE
    exponent = (largest >> 23) - 127
    exponent = jnp.where(valid, exponent - jnp.clip(exponent, 0, 60), 0)
    # Two factors, as 2^-exponent may be outside the range of float32 for very small or large costs.
    half = exponent // 2
    one = jnp.ones(cost.shape[:-2], jnp.float32)
    first, second = jnp.ldexp(one, -half), jnp.ldexp(one, half - exponent)
    safe = cost * first[..., None, None] * second[..., None, None]
    safe = jnp.where(valid[..., None, None], safe, 0.0)
    return safe, jnp.ldexp(one, exponent), valid


def complete(columns: jax.Array, num_columns: int) -> jax.Array:
    """Gives the free columns, in ascending order, to the rows without one (-1), int32 [B, N]."""

    def fill(columns: jax.Array) -> jax.Array:
        batch = columns.shape[0]
        index = jnp.arange(batch)[:, None]
        beyond = num_columns + jnp.arange(columns.shape[1], dtype=columns.dtype)  # dropped
        target = jnp.where(columns < 0, beyond, columns)
        used = jnp.zeros((batch, num_columns), bool)
        used = used.at[index, target].set(True, mode="drop", unique_indices=True)
        free = jnp.argsort(used, axis=-1, stable=True).astype(jnp.int32)
        rank = jnp.cumsum(columns < 0, axis=-1) - 1
        spare = jnp.take_along_axis(free, jnp.clip(rank, 0, num_columns - 1), axis=-1)
        return jnp.where(columns < 0, spare, columns)

    return jax.lax.cond(jnp.any(columns < 0), fill, lambda columns: columns, columns)


def certify(cost: jax.Array, columns: jax.Array, prices: jax.Array) -> jax.Array:
    """Bounds the cost minus the optimum by weak duality, for any finite prices; float32 [B].

    With y_i = min_j (c_ij - p_j), sum y + sum p is at most the optimum, provided p <= 0 if some
    columns remain free. The bound is sum_i (c_i,s(i) - p_s(i) - y_i) minus the sum of p over the
    free columns, nonnegative terms, plus a bound on their rounding, so that it holds in exact
    arithmetic. It is inf where a chosen pair is forbidden.
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
        # All prices are <= 0, so all terms of this sum over the free columns increase the bound.
        index = jnp.arange(cost.shape[0])[:, None]
        used = jnp.zeros(prices.shape, bool)
        used = used.at[index, columns].set(True, unique_indices=True)
        gap = gap - jnp.sum(jnp.where(used, 0.0, prices), axis=-1)
    # The relative error of a difference is at most 2^-24, that of a sum of n nonnegative terms at
    # most n times that.
    unit = 2.0**-24
    gap = (gap + 2 * unit * rounding) * (1 + unit * (num_rows + num_columns))
    return jnp.where(jnp.isfinite(gap), gap, jnp.inf)
