"""Shortest augmenting paths for a whole batch, found by waves instead of column by column.

A turn of the loop relaxes the edges of all rows at once (one Bellman-Ford wave, an [N, K] minimum
that a vector unit swallows whole), so a search takes as many turns as its paths have hops, where
Dijkstra takes as many as its tree has columns. Problems do not wait for each other: one that has
found its paths augments and begins its next search in the same turn. Each row carries the set of
rows between its root and itself along, so that paths need not be walked back.

Source of the scheme, a primal-dual method with shortest paths from all free rows at once:
J. Edmonds and R. M. Karp, "Theoretical improvements in algorithmic efficiency for network flow
problems", JACM 19, 1972. For N = K prices may change everywhere, so every tree of the forest that
holds a free column augments; for N < K free columns must keep the price 0, see `_cuts`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.matching.bidding import Offers
from pivq_jax.matching.minima import least

_INF = jnp.inf
_BITS = 32


class Turns(NamedTuple):
    """Turns of the loop, each int32."""

    waves: jax.Array
    searches: jax.Array  # waves that ended a search in some problem


class _State(NamedTuple):
    turn: jax.Array  # int32
    distance: jax.Array  # float32 [B, K], from the nearest root
    pred: jax.Array  # int32 [B, K], the row before
    chain: (
        jax.Array
    )  # int32 [B, N, 1 + N / 32], the root of each row and, as bits, the rows between
    duals: jax.Array  # float32 [B, N], reduced cost of the own column, or least one of a free row
    offers: Offers
    live: jax.Array  # bool [B]
    searches: jax.Array  # int32, turns in which a search ended


def augment_all(cost: jax.Array, offers: Offers) -> tuple[Offers, Turns]:
    """Matches all free rows along shortest paths of reduced costs.

    Args:
      cost: float32 [B, N, K], finite or +inf.
      offers: a partial matching, tight under its prices; for N < K free columns have price 0.

    Returns:
      offers: complete, unless a problem has no augmenting path; that problem stops there.
      turns: what it took.
    """
    batch, num_rows, num_columns = cost.shape
    square = num_rows == num_columns
    rows_iota = jnp.arange(num_rows, dtype=jnp.int32)[:, None]
    columns_iota = jnp.arange(num_columns, dtype=jnp.int32)
    own_bit = np.zeros((num_rows, 1 + -(-num_rows // _BITS)), np.uint32)
    own_bit[np.arange(num_rows), 1 + np.arange(num_rows) // _BITS] = 1 << (
        np.arange(num_rows) % _BITS
    )
    own_bit = own_bit.view(np.int32)
    alone = own_bit.copy()  # the chain of a root
    alone[:, 0] = np.arange(num_rows)

    def begin(offers: Offers) -> jax.Array:
        own = jnp.take_along_axis(cost, jnp.maximum(offers.column_of, 0)[..., None], axis=2)[..., 0]
        own = own - jnp.take_along_axis(offers.prices, jnp.maximum(offers.column_of, 0), axis=1)
        least = jnp.min(cost - offers.prices[:, None, :], axis=2)
        return jnp.where(offers.column_of < 0, least, own)

    def relax(state: _State) -> tuple[jax.Array, jax.Array]:
        # Tight pairs: a matched row is as far as its column, and a root is at 0.
        column_of, prices = state.offers.column_of, state.offers.prices
        reach = jnp.take_along_axis(state.distance, jnp.maximum(column_of, 0), axis=1)
        reach = jnp.where(column_of < 0, 0.0, reach)
        start = jnp.where(reach < _INF, reach - state.duals, _INF)
        # No edge is shorter than 0, rounding or not; so labels settle within N + 1 waves.
        label = jnp.maximum(start[..., None] + cost - prices[:, None, :], reach[..., None])
        return reach, label

    def wave(state: _State) -> _State:
        row_of, column_of, _ = state.offers
        reach, label = relax(state)
        low, row = least(label, jnp.broadcast_to(rows_iota, label.shape), axis=1)
        closer = low < state.distance
        distance = jnp.where(closer, low, state.distance)
        pred = jnp.where(closer, row, state.pred)
        before = jnp.take_along_axis(pred, jnp.maximum(column_of, 0), axis=1)
        chain = jnp.take_along_axis(state.chain, before[..., None], axis=1) | own_bit
        chain = jnp.where((column_of < 0)[..., None], alone, chain)
        # Labels up to the least one that just changed are final, and chains below the nearest one
        # that just changed. Free columns lead nowhere, so changes there do not count. For N = K a
        # full search pays: all trees may augment after it.
        free = row_of < 0
        final = jnp.min(jnp.where(closer & ~free, low, _INF), axis=1)
        moved = jnp.any(chain != state.chain, axis=2) & (column_of >= 0)
        moved = jnp.min(jnp.where(moved, reach, _INF), axis=1)
        nearest = _INF if square else jnp.min(jnp.where(free, distance, _INF), axis=1)
        settled = state.live & (final >= nearest) & ((moved > nearest) | (moved == _INF))
        state = state._replace(turn=state.turn + 1, distance=distance, pred=pred, chain=chain)
        return jax.lax.cond(jnp.any(settled), finish, lambda *a: a[0], state, settled, final, moved)

    def finish(state: _State, settled: jax.Array, final: jax.Array, moved: jax.Array) -> _State:
        row_of, column_of, prices = state.offers
        distance, pred = state.distance, state.pred
        root = jnp.take_along_axis(state.chain[..., 0], pred, axis=1)
        root = jnp.where(distance < _INF, root, num_rows)
        exits = (root[:, None, :] == rows_iota) & (row_of < 0)[:, None, :]
        exits = jnp.where(exits, distance[:, None, :], _INF)
        # Of each root, the distance of its nearest free column, and that column.
        exit_, sink = least(exits, jnp.broadcast_to(columns_iota, exits.shape), axis=2)
        exit_ = jnp.where((exit_ <= final[:, None]) & (exit_ < moved[:, None]), exit_, _INF)
        if square:
            augments = exit_ < _INF
            furthest = jnp.max(jnp.where(distance < _INF, distance, -_INF), axis=1)
            cut = jnp.broadcast_to(furthest[:, None], exit_.shape)
        else:
            reach, label = relax(state)
            cut, augments = _cuts(reach, label, root, column_of, exit_)
        found = jnp.any(augments, axis=1) & settled
        prices = jnp.where(
            found[:, None] & (distance < _INF),
            prices + jnp.minimum(distance - _pick(cut, root, _INF), 0.0),
            prices,
        )
        sink = jnp.where(augments & settled[:, None], sink, num_columns)
        row_of, column_of = _flip(sink, root, pred, state.chain, row_of, column_of)
        offers = Offers(row_of, column_of, prices)
        left = jnp.any(column_of < 0, axis=1)
        return state._replace(
            distance=jnp.where(settled[:, None], _INF, distance),
            duals=jnp.where(settled[:, None], begin(offers), state.duals),
            offers=offers,
            live=state.live & jnp.where(settled, found & left, True),
            searches=state.searches + 1,
        )

    state = _State(
        jnp.int32(0),
        jnp.full((batch, num_columns), _INF, jnp.float32),
        jnp.zeros((batch, num_columns), jnp.int32),
        jnp.zeros((batch, *own_bit.shape), jnp.int32),
        begin(offers),
        offers,
        jnp.any(offers.column_of < 0, axis=1),
        jnp.int32(0),
    )
    # A search ends within 2 N + 2 waves, labels settling first and chains after them, and matches
    # a row or stops its problem: the loop is finite.
    state = jax.lax.while_loop(lambda state: jnp.any(state.live), wave, state)
    return state.offers, Turns(state.turn, state.searches)


def _pick(table: jax.Array, index: jax.Array, beyond: float) -> jax.Array:
    """table[b, index[b, :]], where an index past the end reads `beyond`."""
    size = table.shape[1]
    picked = jnp.take_along_axis(table, jnp.minimum(index, size - 1), axis=1)
    return jnp.where(index < size, picked, beyond)


def _cuts(
    reach: jax.Array, label: jax.Array, root: jax.Array, column_of: jax.Array, exit_: jax.Array
) -> tuple[jax.Array, jax.Array]:
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
    row_exit = _pick(exit_, row_root, _INF)
    abroad = jnp.where(root[:, None, :] != row_root[..., None], label, _INF)
    leaves = (reach < row_exit) & (jnp.min(abroad, axis=2) < row_exit)
    open_ = jnp.any(leaves[:, None, :] & (row_root[:, None, :] == rows_iota[:, None]), axis=2)
    nearest = jnp.min(exit_, axis=1, keepdims=True)
    closed = ~open_ & (exit_ < _INF)
    return jnp.where(closed, exit_, nearest), (closed | (exit_ == nearest)) & (exit_ < _INF)


def _flip(
    sink: jax.Array,
    root: jax.Array,
    pred: jax.Array,
    chain: jax.Array,
    row_of: jax.Array,
    column_of: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Exchanges matched and unmatched pairs along the path from each root to its sink, at once.

    Args:
      sink: int32 [B, N], for each root the free column at the end of its path, or K.
      root: int32 [B, K]; pred: int32 [B, K]; chain: int32 [B, N, 1 + N / 32].
      row_of: int32 [B, K]; column_of: int32 [B, N].

    Returns:
      row_of, column_of.
    """
    num_rows, num_columns = column_of.shape[1], row_of.shape[1]
    rows_iota = jnp.arange(num_rows, dtype=jnp.int32)
    columns_iota = jnp.arange(num_columns, dtype=jnp.int32)
    last = jnp.take_along_axis(pred, jnp.minimum(sink, num_columns - 1), axis=1)
    paths = jnp.take_along_axis(chain[..., 1:], last[..., None], axis=1)
    paths = jnp.where((sink < num_columns)[..., None], paths, 0)
    paths = jax.lax.reduce(paths, np.int32(0), jax.lax.bitwise_or, (1,))  # trees share no row
    on_path = jnp.repeat(paths, _BITS, axis=1)[:, :num_rows] >> (rows_iota % _BITS) & 1
    # The columns on a path are the sink and those that its rows own so far.
    flips = _pick(on_path, jnp.where(row_of < 0, num_rows, row_of), 0) == 1
    flips = flips | ((row_of < 0) & (_pick(sink, root, num_columns) == columns_iota))
    lane = jnp.arange(sink.shape[0])[:, None]
    column_of = column_of.at[lane, jnp.where(flips, pred, num_rows)].set(columns_iota, mode="drop")
    return jnp.where(flips, pred, row_of), column_of
