"""Shortest augmenting paths for a whole batch, found by waves instead of column by column.

A turn of the loop relaxes the edges of all rows at once (one Bellman-Ford wave, an [N, K] minimum
that a vector unit swallows whole), so a search takes as many turns as its paths have hops, where
Dijkstra takes as many as its tree has columns. Problems do not wait for each other: one that has
found its paths augments and begins its next search in the same turn.

Source of the scheme, a primal-dual method with shortest paths from all free rows at once:
J. Edmonds and R. M. Karp, "Theoretical improvements in algorithmic efficiency for network flow
problems", JACM 19, 1972. For N = K prices may change everywhere, so every tree of the forest that
holds a free column augments; for N < K free columns must keep the price 0, see `_cuts`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pivq_jax.matching.bidding import Offers

_INF = jnp.inf


class Walk(NamedTuple):
    """Turns of loops, each int32."""

    waves: jax.Array
    searches: jax.Array  # waves that ended a search
    hops: jax.Array  # steps along the paths found, those of all problems at once


class _State(NamedTuple):
    turn: jax.Array  # int32
    distance: jax.Array  # float32 [B, K], from the nearest root
    pred: jax.Array  # int32 [B, K], the row before
    duals: jax.Array  # float32 [B, N], reduced cost of the own column, or least one of a free row
    offers: Offers
    live: jax.Array  # bool [B]
    searches: jax.Array  # int32, turns in which a search ended
    hops: jax.Array  # int32, turns of the loops that walk paths back


def augment_all(cost: jax.Array, offers: Offers) -> tuple[Offers, Walk]:
    """Matches all free rows along shortest paths of reduced costs.

    Args:
      cost: float32 [B, N, K], finite or +inf.
      offers: a partial matching, tight under its prices; for N < K free columns have price 0.

    Returns:
      offers: complete, unless a problem has no augmenting path; that problem stops there.
      walk: the turns it took.
    """
    batch, num_rows, num_columns = cost.shape
    square = num_rows == num_columns
    rows_iota = jnp.arange(num_rows, dtype=jnp.int32)[:, None]
    columns_iota = jnp.arange(num_columns, dtype=jnp.int32)

    def begin(offers):
        own = jnp.take_along_axis(cost, jnp.maximum(offers.column_of, 0)[..., None], axis=2)[..., 0]
        own = own - jnp.take_along_axis(offers.prices, jnp.maximum(offers.column_of, 0), axis=1)
        least = jnp.min(cost - offers.prices[:, None, :], axis=2)
        return jnp.where(offers.column_of < 0, least, own)

    def relax(state):
        # Tight pairs: a matched row is as far as its column, and a root is at 0.
        column_of, prices = state.offers.column_of, state.offers.prices
        reach = jnp.take_along_axis(state.distance, jnp.maximum(column_of, 0), axis=1)
        reach = jnp.where(column_of < 0, 0.0, reach)
        start = jnp.where(reach < _INF, reach - state.duals, _INF)
        # No edge is shorter than 0, rounding or not; so labels settle within N + 1 waves.
        label = jnp.maximum(start[..., None] + cost - prices[:, None, :], reach[..., None])
        return reach, label

    def wave(state):
        _, label = relax(state)
        low = jnp.min(label, axis=1)
        row = jnp.min(jnp.where(label == low[:, None, :], rows_iota, num_rows), axis=1)
        closer = low < state.distance
        distance = jnp.where(closer, low, state.distance)
        pred = jnp.where(closer, row, state.pred)
        # Labels below every one that just changed are final. Free columns lead nowhere, so changes
        # there do not count. For N = K a full search pays: all trees may augment after it.
        free = state.offers.row_of < 0
        final = jnp.min(jnp.where(closer & ~free, low, _INF), axis=1)
        nearest = _INF if square else jnp.min(jnp.where(free, distance, _INF), axis=1)
        settled = state.live & (final >= nearest)
        state = state._replace(turn=state.turn + 1, distance=distance, pred=pred)
        return jax.lax.cond(jnp.any(settled), finish, lambda *a: a[0], state, settled, final)

    def finish(state, settled, final):
        row_of, column_of, prices = state.offers
        distance = state.distance
        root = _roots(state.pred, column_of, distance)
        in_tree = root[:, None, :] == rows_iota
        exit_ = jnp.where(in_tree & (row_of < 0)[:, None, :], distance[:, None, :], _INF)
        exit_ = jnp.min(exit_, axis=2)  # of each root, the distance of its nearest free column
        exit_ = jnp.where(exit_ <= final[:, None], exit_, _INF)
        if square:
            augments = exit_ < _INF
            furthest = jnp.max(jnp.where(distance < _INF, distance, -_INF), axis=1)
            cut = jnp.broadcast_to(furthest[:, None], exit_.shape)
        else:
            reach, label = relax(state)
            cut, augments = _cuts(reach, label, root, column_of, exit_)
        found = jnp.any(augments, axis=1) & settled
        augments = augments & settled[:, None]
        own_cut = _pick(cut, root)
        prices = jnp.where(
            found[:, None] & (distance < _INF),
            prices + jnp.minimum(distance - own_cut, 0.0),
            prices,
        )
        sinks = in_tree & augments[..., None] & (row_of < 0)[:, None, :]
        sinks = sinks & (distance[:, None, :] == exit_[..., None])
        sink = jnp.min(jnp.where(sinks, columns_iota, num_columns), axis=2)
        row_of, column_of, hops = _flip(sink, state.pred, row_of, column_of)
        offers = Offers(row_of, column_of, prices)
        live = state.live & jnp.where(settled, found & jnp.any(column_of < 0, axis=1), True)
        return state._replace(
            distance=jnp.where(settled[:, None], _INF, distance),
            duals=jnp.where(settled[:, None], begin(offers), state.duals),
            offers=offers,
            live=live,
            searches=state.searches + 1,
            hops=state.hops + hops,
        )

    state = _State(
        jnp.int32(0),
        jnp.full((batch, num_columns), _INF, jnp.float32),
        jnp.zeros((batch, num_columns), jnp.int32),
        begin(offers),
        offers,
        jnp.any(offers.column_of < 0, axis=1),
        jnp.int32(0),
        jnp.int32(0),
    )
    # A search ends within N + 2 waves and matches a row or stops its problem: the loop is finite.
    state = jax.lax.while_loop(lambda state: jnp.any(state.live), wave, state)
    return state.offers, Walk(state.turn, state.searches, state.hops)


def _pick(table: jax.Array, index: jax.Array) -> jax.Array:
    """table[b, index[b, :]], where an index past the end reads inf."""
    size = table.shape[1]
    picked = jnp.take_along_axis(table, jnp.minimum(index, size - 1), axis=1)
    return jnp.where(index < size, picked, _INF)


def _roots(pred: jax.Array, column_of: jax.Array, distance: jax.Array) -> jax.Array:
    """The root of each column's tree, by pointer doubling; N if not reached. int32 [B, K]."""
    num_rows = column_of.shape[1]
    iota = jnp.arange(pred.shape[1], dtype=jnp.int32)
    parent = jnp.take_along_axis(column_of, pred, axis=1)
    parent = jnp.where(parent < 0, iota, parent)  # the row before it is a root
    for _ in range(num_rows.bit_length()):
        parent = jnp.take_along_axis(parent, parent, axis=1)
    root = jnp.take_along_axis(pred, parent, axis=1)
    return jnp.where(distance < _INF, root, num_rows)


def _cuts(reach, label, root, column_of, exit_):
    """How far prices may change in each tree when free columns must keep the price 0.

    One tree may always augment: the one with the nearest exit, with prices cut at that distance in
    all trees. A tree that no edge leaves before its own exit may be cut there instead and augment
    too: within its cut it is what a search from its root alone would have found, and it touches no
    other (E. Balas, D. Miller, J. Pekny and P. Toth, "A parallel shortest augmenting path algorithm
    for the assignment problem", JACM 38, 1991).

    Args:
      reach: float32 [B, N]; label: float32 [B, N, K], distance of each column through each row.
      root: int32 [B, K]; column_of: int32 [B, N]; exit_: float32 [B, N], inf where not a root.

    Returns:
      cut: float32 [B, N], for each root; augments: bool [B, N].
    """
    num_rows = column_of.shape[1]
    rows_iota = jnp.arange(num_rows, dtype=jnp.int32)
    row_root = jnp.take_along_axis(root, jnp.maximum(column_of, 0), axis=1)
    row_root = jnp.where(column_of < 0, rows_iota, row_root)
    row_exit = _pick(exit_, row_root)
    abroad = jnp.where(root[:, None, :] != row_root[..., None], label, _INF)
    leaves = (reach < row_exit) & (jnp.min(abroad, axis=2) < row_exit)
    open_ = jnp.any(leaves[:, None, :] & (row_root[:, None, :] == rows_iota[:, None]), axis=2)
    nearest = jnp.min(exit_, axis=1, keepdims=True)
    closed = ~open_ & (exit_ < _INF)
    return jnp.where(closed, exit_, nearest), (closed | (exit_ == nearest)) & (exit_ < _INF)


def _flip(sink, pred, row_of, column_of):
    """Exchanges matched and unmatched pairs along the path to each sink.

    Args:
      sink: int32 [B, N], for each root the free column at the end of its path, or K.
      pred: int32 [B, K]; row_of: int32 [B, K]; column_of: int32 [B, N].
    """
    num_rows, num_columns = column_of.shape[1], row_of.shape[1]
    lane = jnp.arange(sink.shape[0])[:, None]

    def hop(state):
        column, row_of, column_of, hops = state
        row = jnp.take_along_axis(pred, jnp.minimum(column, num_columns - 1), axis=1)
        row = jnp.where(column < num_columns, row, num_rows)
        onward = jnp.take_along_axis(column_of, jnp.minimum(row, num_rows - 1), axis=1)
        onward = jnp.where((row < num_rows) & (onward >= 0), onward, num_columns)
        row_of = row_of.at[lane, column].set(row, mode="drop")
        column_of = column_of.at[lane, row].set(column, mode="drop")
        return onward, row_of, column_of, hops + 1

    state = (sink, row_of, column_of, jnp.int32(0))
    state = jax.lax.while_loop(lambda state: jnp.any(state[0] < num_columns), hop, state)
    return state[1:]
