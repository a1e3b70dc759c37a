"""The cheap baseline: always the cheapest pair that is left."""

import jax
import jax.numpy as jnp


def solve(cost: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Matches by ascending cost. Not exact, and may end incomplete where pairs are forbidden.

    Args:
      cost: float32 [B, N, K], N <= K, finite or +inf.

    Returns:
      columns: int32 [B, N]; -1 where only forbidden columns are left.
      prices: float32 [B, K]: for N < K zero, which bounds the cost by the sum of row minima; for
        N = K column minima of what exceeds the row minima, the first step of the Hungarian method.
    """
    columns = pair_off(cost)
    prices = jnp.zeros(cost.shape[::2], jnp.float32)
    if cost.shape[1] == cost.shape[2]:
        least = jnp.min(cost, axis=2, keepdims=True)
        prices = jnp.min(cost - jnp.where(least < jnp.inf, least, 0.0), axis=1)
        prices = jnp.where(prices < jnp.inf, prices, 0.0)
    return columns, prices


def pair_off(cost: jax.Array) -> jax.Array:
    """Matches all mutual favourites, again and again. float32 [B, N, K] -> int32 [B, N].

    The cheapest pair that is left is a pair of mutual favourites, so at most N rounds give what
    sorting all pairs would give (between equal costs, the lower index first).
    """
    batch, num_rows, num_columns = cost.shape
    rows_iota = jnp.arange(num_rows, dtype=jnp.int32)
    columns_iota = jnp.arange(num_columns, dtype=jnp.int32)

    def turn(state):
        columns, taken, _ = state
        out = (columns >= 0)[..., None] | taken[:, None, :]
        left = jnp.where(out, jnp.inf, cost)
        low = jnp.min(left, axis=2, keepdims=True)
        wish = jnp.min(jnp.where(left == low, columns_iota, num_columns), axis=2)
        wished = (columns_iota == wish[..., None]) & (low < jnp.inf)
        offer = jnp.where(wished, left, jnp.inf)
        best = jnp.min(offer, axis=1, keepdims=True)
        # No row may bid lower for the column later: a row that wishes for another has less there,
        # but that one may be lost to it. So only a column's overall favourite wins.
        favourite = jnp.min(left, axis=1, keepdims=True)
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
