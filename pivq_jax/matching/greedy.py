"""Greedy baseline: repeatedly match the cheapest remaining pair."""

import jax
import jax.numpy as jnp


def solve(cost: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Matches pairs in ascending order of cost; -1 for rows to which only forbidden columns remain.

    The prices, float32 [B, K], are zero if N < K, which bounds the optimum by the sum of row
    minima. If N = K, they are the column minima of the cost minus the row minima, the first step of
    the Hungarian method.
    """
    columns = pair_off(cost)
    prices = jnp.zeros(cost.shape[::2], jnp.float32)
    if cost.shape[1] == cost.shape[2]:
        least = jnp.min(cost, axis=2, keepdims=True)
        prices = jnp.min(cost - jnp.where(least < jnp.inf, least, 0.0), axis=1)
        prices = jnp.where(prices < jnp.inf, prices, 0.0)
    return columns, prices


def pair_off(cost: jax.Array) -> jax.Array:
    """Repeatedly matches all mutually cheapest pairs; -1 where only forbidden columns remain.

    The cheapest remaining pair is always mutually cheapest, so at most N rounds give the same
    result as going through all pairs by cost, in some order of equal ones.
    """
    batch, num_rows, num_columns = cost.shape
    rows_iota = jnp.arange(num_rows, dtype=jnp.int32)
    columns_iota = jnp.arange(num_columns, dtype=jnp.int32)

    State = tuple[jax.Array, jax.Array, jax.Array]

    def turn(state: State) -> State:
        columns, taken, _ = state
        out = (columns >= 0)[..., None] | taken[:, None, :]
        available = jnp.where(out, jnp.inf, cost)
        low = jnp.min(available, axis=2, keepdims=True)
        wish = jnp.min(jnp.where(available == low, columns_iota, num_columns), axis=2)
        wished = (columns_iota == wish[..., None]) & (low < jnp.inf)
        offer = jnp.where(wished, available, jnp.inf)
        best = jnp.min(offer, axis=1, keepdims=True)
        # No row may request the column at a lower cost later. A row that now requests another,
        # cheaper column may lose that one, so only the column's cheapest row of all wins.
        favourite = jnp.min(available, axis=1, keepdims=True)
        wins = wished & (offer == best) & (best == favourite)
        first = jnp.min(jnp.where(wins, rows_iota[:, None], num_rows), axis=1)
        wins = wins & (rows_iota[:, None] == first[:, None, :])
        won = jnp.any(wins, axis=2)
        columns = jnp.where(won, wish, columns)
        return columns, taken | jnp.any(wins, axis=1), jnp.any(won)

    state = (
        jnp.full((batch, num_rows), -1, jnp.int32),
        jnp.zeros((batch, num_columns), bool),
        jnp.bool_(True),
    )
    columns, _, _ = jax.lax.while_loop(lambda state: state[2], turn, state)
    return columns
