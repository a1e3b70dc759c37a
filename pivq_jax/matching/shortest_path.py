"""Exact assignment, one problem at a time: greedy start, then shortest augmenting paths.

Source: R. Jonker and A. Volgenant, "A shortest augmenting path algorithm for dense and sparse
linear assignment problems", Computing 38, 1987; for N < K, D. F. Crouse, "On implementing 2D
rectangular assignment algorithms", IEEE Trans. Aerospace and Electronic Systems 52, 2016.
"""

import jax
import jax.numpy as jnp


def solve(cost: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Solves each problem of a batch in turn.

    Args:
      cost: float32 [B, N, K], N <= K, entries finite and at most 1 in size, or +inf (forbidden).

    Returns:
      columns: int32 [B, N], the column of each row; -1 where no augmenting path exists.
      prices: float32 [B, K], column potentials; for N < K never positive, 0 on unmatched columns.
    """
    return jax.lax.map(_solve_one, cost)


def _first_min(values: jax.Array, iota: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Smallest value and its first index: two plain reductions, which XLA vectorises on CPU."""
    low = jnp.min(values)
    return low, jnp.min(jnp.where(values == low, iota, values.shape[0] - 1))


def _solve_one(cost: jax.Array) -> tuple[jax.Array, jax.Array]:
    num_rows, num_columns = cost.shape
    columns_iota = jnp.arange(num_columns, dtype=jnp.int32)
    rows_iota = jnp.arange(num_rows, dtype=jnp.int32)

    # Start: every row asks for its cheapest column, the first to ask gets it. Prices stay at zero,
    # as unmatched columns demand; with N = K there are none, and column minima are a better start.
    prices = jnp.zeros(num_columns, cost.dtype)
    if num_rows == num_columns:
        prices = jnp.min(cost, axis=0)
        prices = jnp.where(jnp.isinf(prices), 0.0, prices)
    reduced = cost - prices
    best = jnp.min(reduced, axis=1)
    wish = jnp.min(jnp.where(reduced == best[:, None], columns_iota, num_columns - 1), axis=1)
    wish = jnp.where(jnp.isinf(best), num_columns, wish)
    row_of = jnp.full(num_columns, num_rows, jnp.int32).at[wish].min(rows_iota, mode="drop")
    row_of = jnp.where(row_of == num_rows, -1, row_of)
    won = row_of[jnp.minimum(wish, num_columns - 1)] == rows_iota
    column_of = jnp.where(won & (wish < num_columns), wish, -1)

    def insert(row, state):
        return jax.lax.cond(
            state[0][row] >= 0, lambda s: s, lambda s: _augment(cost, row, *s), state
        )

    column_of, _, prices = jax.lax.fori_loop(0, num_rows, insert, (column_of, row_of, prices))
    return column_of, prices


def _augment(cost, row, column_of, row_of, prices):
    """Matches one free row along a shortest path of reduced costs (Dijkstra, dense)."""
    num_columns = cost.shape[1]
    iota = jnp.arange(num_columns, dtype=jnp.int32)
    inf = jnp.float32(jnp.inf)

    def searching(state):
        # Each turn scans one more column, so at most N + 1 turns; low is inf on a dead end.
        _, _, _, low, sink = state
        return (sink < 0) & (low < inf)

    def expand(state):
        distance, pred, scanned, _, _ = state
        low, column = _first_min(jnp.where(scanned, inf, distance), iota)
        owner = row_of[column]
        done = (owner < 0) | (low == inf)
        owner = jnp.maximum(owner, 0)
        sink = jnp.where(done & (low < inf), column, -1)
        scanned = scanned | ((iota == column) & ~done)
        base = cost[owner, column] - prices[column] - low
        # Rounding may not undercut the frontier: distances leave the queue in order.
        onward = jnp.maximum(cost[owner] - prices - base, low)
        closer = ~scanned & (onward < distance) & ~done
        return (
            jnp.where(closer, onward, distance),
            jnp.where(closer, owner, pred),
            scanned,
            low,
            sink,
        )

    start = (
        cost[row] - prices,
        jnp.full(num_columns, row, jnp.int32),
        jnp.zeros(num_columns, bool),
        -inf,
        jnp.int32(-1),
    )
    distance, pred, scanned, low, sink = jax.lax.while_loop(searching, expand, start)
    found = sink >= 0
    prices = jnp.where(scanned & found, prices + jnp.minimum(distance - low, 0.0), prices)

    def flip(state):
        column, column_of, row_of = state
        owner = pred[column]
        return column_of[owner], column_of.at[owner].set(column), row_of.at[column].set(owner)

    _, column_of, row_of = jax.lax.while_loop(
        lambda state: state[0] >= 0, flip, (sink, column_of, row_of)
    )
    return column_of, row_of, prices
