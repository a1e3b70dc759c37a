"""Shortest augmenting paths for a whole batch, found by waves instead of column by column.

A turn of the loop relaxes the edges of all rows at once (one Bellman-Ford wave, an [N, K] minimum
that a vector unit swallows whole), so a search takes as many turns as its paths have hops, where
Dijkstra takes as many as its tree has columns. Problems do not wait for each other: one that has
found its paths augments and begins its next search in the same turn.

Source of the scheme, a primal-dual method with shortest paths from all free rows at once:
J. Edmonds and R. M. Karp, "Theoretical improvements in algorithmic efficiency for network flow
problems", JACM 19, 1972. For N = K prices may change everywhere, so every tree of the forest that
holds a free column augments; for N < K free columns must keep the price 0, so only the nearest do.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pivq_jax.matching.bidding import Offers

_INF = jnp.inf


class _State(NamedTuple):
    turn: jax.Array  # int32
    distance: jax.Array  # float32 [B, K], from the nearest root
    pred: jax.Array  # int32 [B, K], the row before
    duals: jax.Array  # float32 [B, N], reduced cost of the own column, or least one of a free row
    offers: Offers
    live: jax.Array  # bool [B]


def augment_all(cost: jax.Array, offers: Offers) -> tuple[Offers, jax.Array]:
    """Matches all free rows along shortest paths of reduced costs.

    Args:
      cost: float32 [B, N, K], finite or +inf.
      offers: a partial matching, tight under its prices; for N < K free columns have price 0.

    Returns:
      offers: complete, unless a problem has no augmenting path; that problem stops there.
      waves: int32, turns of the loop.
    """
    batch, num_rows, num_columns = cost.shape
    square = num_rows == num_columns
    rows_iota = jnp.arange(num_rows, dtype=jnp.int32)[:, None]

    def begin(offers):
        own = jnp.take_along_axis(cost, jnp.maximum(offers.column_of, 0)[..., None], axis=2)[..., 0]
        own = own - jnp.take_along_axis(offers.prices, jnp.maximum(offers.column_of, 0), axis=1)
        least = jnp.min(cost - offers.prices[:, None, :], axis=2)
        return jnp.where(offers.column_of < 0, least, own)

    def wave(state):
        # Tight pairs: a matched row is as far as its column, and a root is at 0.
        column_of, prices = state.offers.column_of, state.offers.prices
        reach = jnp.take_along_axis(state.distance, jnp.maximum(column_of, 0), axis=1)
        reach = jnp.where(column_of < 0, 0.0, reach)
        start = reach - state.duals
        # No edge is shorter than 0, rounding or not; so labels settle within N + 1 waves.
        label = jnp.maximum(
            start[..., None] + cost - prices[:, None, :], reach[..., None]
        )
        label = jnp.where(reach[..., None] < _INF, label, _INF)
        low = jnp.min(label, axis=1)
        row = jnp.min(jnp.where(label == low[:, None, :], rows_iota, num_rows), axis=1)
        closer = low < state.distance
        distance = jnp.where(closer, low, state.distance)
        pred = jnp.where(closer, row, state.pred)
        free = state.offers.row_of < 0
        if square:
            limit = jnp.full((batch, 1), _INF)
        else:
            limit = jnp.min(jnp.where(free, distance, _INF), axis=1, keepdims=True)
        settled = state.live & ~jnp.any(closer & (low < limit), axis=1)
        state = state._replace(turn=state.turn + 1, distance=distance, pred=pred)
        return jax.lax.cond(jnp.any(settled), finish, lambda *a: a[0], state, settled, limit)

    def finish(state, settled, limit):
        row_of, column_of, prices = state.offers
        free = row_of < 0
        if square:
            reached = jnp.where(state.distance < _INF, state.distance, -_INF)
            limit = jnp.max(reached, axis=1, keepdims=True)
            sinks = free & (state.distance < _INF)
        else:
            sinks = free & (state.distance == limit) & (limit < _INF)
        sinks = sinks & settled[:, None]
        found = jnp.any(sinks, axis=1)
        change = jnp.minimum(state.distance - limit, 0.0)
        prices = jnp.where(found[:, None], prices + change, prices)
        row_of, column_of = _flip(sinks, state.pred, row_of, column_of)
        offers = Offers(row_of, column_of, prices)
        live = state.live & jnp.where(settled, found & jnp.any(column_of < 0, axis=1), True)
        return state._replace(
            distance=jnp.where(settled[:, None], _INF, state.distance),
            duals=jnp.where(settled[:, None], begin(offers), state.duals),
            offers=offers,
            live=live,
        )

    state = _State(
        jnp.int32(0),
        jnp.full((batch, num_columns), _INF, jnp.float32),
        jnp.zeros((batch, num_columns), jnp.int32),
        begin(offers),
        offers,
        jnp.any(offers.column_of < 0, axis=1),
    )
    # A search ends within N + 2 waves and matches a row or stops its problem: the loop is finite.
    state = jax.lax.while_loop(lambda state: jnp.any(state.live), wave, state)
    return state.offers, state.turn


def _flip(sinks, pred, row_of, column_of):
    """Exchanges matched and unmatched pairs along one path from each tree that holds a sink.

    Args:
      sinks: bool [B, K], free columns that end a shortest path; pred: int32 [B, K].
    """
    batch, num_columns = sinks.shape
    num_rows = column_of.shape[1]
    lane = jnp.arange(batch)[:, None]
    iota = jnp.arange(num_columns, dtype=jnp.int32)

    # The root of each column by pointer doubling; a column whose row is a root points at itself.
    parent = jnp.take_along_axis(column_of, pred, axis=1)
    parent = jnp.where(parent < 0, iota, parent)
    for _ in range(max(num_rows, 1).bit_length()):
        parent = jnp.take_along_axis(parent, parent, axis=1)
    root = jnp.take_along_axis(pred, parent, axis=1)
    target = jnp.where(sinks, root, num_rows)
    column = jnp.full((batch, num_rows), num_columns, jnp.int32)
    column = column.at[lane, target].min(jnp.broadcast_to(iota, sinks.shape), mode="drop")

    def hop(state):
        column, row_of, column_of = state
        row = jnp.take_along_axis(pred, jnp.minimum(column, num_columns - 1), axis=1)
        row = jnp.where(column < num_columns, row, num_rows)
        onward = jnp.take_along_axis(column_of, jnp.minimum(row, num_rows - 1), axis=1)
        onward = jnp.where((row < num_rows) & (onward >= 0), onward, num_columns)
        row_of = row_of.at[lane, column].set(row, mode="drop")
        column_of = column_of.at[lane, row].set(column, mode="drop")
        return onward, row_of, column_of

    state = (column, row_of, column_of)
    state = jax.lax.while_loop(lambda state: jnp.any(state[0] < num_columns), hop, state)
    return state[1], state[2]
