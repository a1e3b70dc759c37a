"""Shortest augmenting paths for a batch, searched in waves instead of column by column.

An iteration of the loop relaxes the edges of all rows at once (one Bellman-Ford wave, an [N, K]
minimum that suits vector units), so a search takes as many iterations as its paths have hops,
whereas Dijkstra's algorithm takes as many as its tree has columns. Problems do not wait for each
other: as soon as the paths of a problem are known, it augments and begins its next search in the
same iteration. Each row stores the set of rows on its path from the root, so that paths need not be
traced back.

Sources: J. Edmonds and R. M. Karp, "Theoretical improvements in algorithmic efficiency for network
flow problems", JACM 19, 1972, for the scheme, a primal-dual method with shortest paths from all
free rows at once; E. Balas, D. Miller, J. Pekny and P. Toth, "A parallel shortest augmenting path
algorithm for the assignment problem", JACM 38, 1991, for augmenting several trees of the forest
after one search. If N = K, prices may change everywhere, so every tree with a free column augments;
if N < K, free columns must keep price 0, see `_cuts`.

Notation, as in the literature: `u` are the duals of rows and `v` those of columns (prices);
`row4col` and `col4row` are the matching, -1 if free. Indices: b problem, i row, j column.

Invariant between searches: `cost[b, i, j] - u[b, i] - v[b, j] >= 0` for all pairs, up to rounding,
with equality for matched pairs; if N < K, also `v <= 0`, and `v = 0` for free columns. Therefore, a
complete matching has minimum cost. During a search, `distance[b, j]` is the length under these
reduced costs of some path from a free row, a root, to column j; `pred` and `chain` describe the
path. The distance only decreases, and it is minimal once all waves that could still lower it are
farther out, which `_wave` determines.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.matching.bidding import Offers
from pivq_jax.matching.minima import least

_INF = jnp.inf
_BITS = 32


class _State(NamedTuple):
    turn: jax.Array  # int32 [], number of iterations
    distance: jax.Array  # float32 [B, K], length of the path to each column, inf if none yet
    pred: jax.Array  # int32 [B, K], the row before each column on its path
    # int32 [B, N, 1 + N / 32], the root of each row's path and, as bits, the rows on that path.
    chain: jax.Array
    u: jax.Array  # float32 [B, N]
    offers: Offers
    live: jax.Array  # bool [B], problems with further searches
    searches: jax.Array  # int32 [], iterations in which a search ended


def augment_all(cost: jax.Array, offers: Offers) -> tuple[Offers, jax.Array, jax.Array]:
    """Matches free rows along shortest paths of reduced costs, as long as there are such paths.

    The offers must be tight under their prices, with price 0 for free columns if N < K. Also
    returns the numbers of waves, int32 [], and of those in which a search of some problem ended.
    """
    batch, num_rows, num_columns = cost.shape
    state = _State(
        jnp.int32(0),
        jnp.full((batch, num_columns), _INF, jnp.float32),
        jnp.zeros((batch, num_columns), jnp.int32),
        jnp.zeros((batch, *_row_bits(num_rows).shape), jnp.int32),
        _row_duals(cost, offers),
        offers,
        jnp.any(offers.col4row < 0, axis=1),
        jnp.int32(0),
    )
    # A search ends within 2 N + 2 waves, as labels settle first and chains after them, and then
    # matches a row or stops its problem. The loop is therefore finite.
    state = jax.lax.while_loop(lambda state: jnp.any(state.live), partial(_wave, cost), state)
    return state.offers, state.turn, state.searches


def _row_bits(num_rows: int) -> np.ndarray:
    """Chains with only the bit of each row and an empty (zero) root, int32 [N, 1 + N / 32]."""
    rows = np.arange(num_rows)
    bits = np.zeros((num_rows, 1 + -(-num_rows // _BITS)), np.uint32)
    bits[rows, 1 + rows // _BITS] = 1 << (rows % _BITS)
    return bits.view(np.int32)


def _row_duals(cost: jax.Array, offers: Offers) -> jax.Array:
    """Computes `u`, float32 [B, N]: the reduced cost of a row's column, or the minimum if free."""
    _, col4row, v = offers
    column = jnp.maximum(col4row, 0)
    own = jnp.take_along_axis(cost, column[..., None], axis=2)[..., 0]
    own = own - jnp.take_along_axis(v, column, axis=1)
    cheapest = jnp.min(cost - v[:, None, :], axis=2)
    return jnp.where(col4row < 0, cheapest, own)


def _relax(cost: jax.Array, state: _State) -> tuple[jax.Array, jax.Array]:
    """Computes the distance of each row, float32 [B, N], and of columns via it, [B, N, K].

    Matched pairs are tight, so a matched row has the distance of its column; roots have distance 0.
    """
    _, col4row, v = state.offers
    reach = jnp.take_along_axis(state.distance, jnp.maximum(col4row, 0), axis=1)
    reach = jnp.where(col4row < 0, 0.0, reach)
    start = jnp.where(reach < _INF, reach - state.u, _INF)
    # No edge is shorter than 0, in spite of rounding, so labels settle within N + 1 waves.
    label = jnp.maximum(start[..., None] + cost - v[:, None, :], reach[..., None])
    return reach, label


def _wave(cost: jax.Array, state: _State) -> _State:
    """Runs one iteration: relaxes all edges, then ends the searches that have settled."""
    _, num_rows, num_columns = cost.shape
    row4col, col4row, _ = state.offers
    rows = jnp.arange(num_rows, dtype=jnp.int32)[:, None]
    row_bits = _row_bits(num_rows)
    root_chain = row_bits.copy()
    root_chain[:, 0] = np.arange(num_rows)

    reach, label = _relax(cost, state)
    low, row = least(label, jnp.broadcast_to(rows, label.shape), axis=1)
    closer = low < state.distance
    distance = jnp.where(closer, low, state.distance)
    pred = jnp.where(closer, row, state.pred)
    before = jnp.take_along_axis(pred, jnp.maximum(col4row, 0), axis=1)
    chain = jnp.take_along_axis(state.chain, before[..., None], axis=1) | row_bits
    chain = jnp.where((col4row < 0)[..., None], root_chain, chain)
    # Distances up to the smallest one that just changed are final, and so are chains below the
    # nearest one that just changed. Changes at free columns do not count, as no path continues
    # there. If N = K, a full search pays off, since all trees may augment after it.
    free = row4col < 0
    final = jnp.min(jnp.where(closer & ~free, low, _INF), axis=1)
    moved = jnp.any(chain != state.chain, axis=2) & (col4row >= 0)
    moved = jnp.min(jnp.where(moved, reach, _INF), axis=1)
    square = num_rows == num_columns
    nearest = _INF if square else jnp.min(jnp.where(free, distance, _INF), axis=1)
    settled = state.live & (final >= nearest) & ((moved > nearest) | (moved == _INF))
    state = state._replace(turn=state.turn + 1, distance=distance, pred=pred, chain=chain)

    def go_on(state: _State, *_: jax.Array) -> _State:
        return state

    end = partial(_end_searches, cost)
    return jax.lax.cond(jnp.any(settled), end, go_on, state, settled, final, moved)


def _end_searches(
    cost: jax.Array, state: _State, settled: jax.Array, final: jax.Array, moved: jax.Array
) -> _State:
    """Augments the problems whose search has settled, and begins their next search.

    Distances up to `final`, float32 [B], are minimal, and chains below `moved`, float32 [B],
    complete.
    """
    _, num_rows, num_columns = cost.shape
    row4col, col4row, v = state.offers
    distance, pred = state.distance, state.pred
    rows = jnp.arange(num_rows, dtype=jnp.int32)[:, None]
    columns = jnp.arange(num_columns, dtype=jnp.int32)
    # The tree of each column, i.e. the root of its path; N if there is none.
    root = jnp.take_along_axis(state.chain[..., 0], pred, axis=1)
    root = jnp.where(distance < _INF, root, num_rows)
    sinks = (root[:, None, :] == rows) & (row4col < 0)[:, None, :]
    sinks = jnp.where(sinks, distance[:, None, :], _INF)
    # For each root, the distance of the nearest free column in its tree, and that column.
    sink_distance, sink = least(sinks, jnp.broadcast_to(columns, sinks.shape), axis=2)
    known = (sink_distance <= final[:, None]) & (sink_distance < moved[:, None])
    sink_distance = jnp.where(known, sink_distance, _INF)
    if num_rows == num_columns:
        augments = sink_distance < _INF
        furthest = jnp.max(jnp.where(distance < _INF, distance, -_INF), axis=1)
        cut = jnp.broadcast_to(furthest[:, None], sink_distance.shape)
    else:
        cut, augments = _cuts(*_relax(cost, state), root, col4row, sink_distance)
    augmented = jnp.any(augments, axis=1) & settled
    v = jnp.where(
        augmented[:, None] & (distance < _INF),
        v + jnp.minimum(distance - _pick(cut, root, _INF), 0.0),
        v,
    )
    sink = jnp.where(augments & settled[:, None], sink, num_columns)
    row4col, col4row = _flip(sink, root, pred, state.chain, row4col, col4row)
    offers = Offers(row4col, col4row, v)
    unmatched = jnp.any(col4row < 0, axis=1)
    return state._replace(
        distance=jnp.where(settled[:, None], _INF, distance),
        u=jnp.where(settled[:, None], _row_duals(cost, offers), state.u),
        offers=offers,
        live=state.live & jnp.where(settled, augmented & unmatched, True),
        searches=state.searches + 1,
    )


def _pick(table: jax.Array, index: jax.Array, beyond: float) -> jax.Array:
    """Returns table[b, index[b, :]], and `beyond` for an index past the end."""
    size = table.shape[1]
    picked = jnp.take_along_axis(table, jnp.minimum(index, size - 1), axis=1)
    return jnp.where(index < size, picked, beyond)


def _cuts(
    reach: jax.Array,
    label: jax.Array,
    root: jax.Array,
    col4row: jax.Array,
    sink_distance: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns where to cut prices in each root's tree, float32 [B, N], and whether it augments.

    Free columns then keep price 0. The tree with the nearest free column can always augment, with
    prices cut at that distance in all trees. A tree is closed if no edge leaves it before its own
    free column. It can be cut there instead and augment too, since within its cut it equals the
    tree of a search from its root alone and touches no other tree (Balas, Miller, Pekny and Toth).
    """
    num_rows = col4row.shape[1]
    rows = jnp.arange(num_rows, dtype=jnp.int32)
    row_root = jnp.take_along_axis(root, jnp.maximum(col4row, 0), axis=1)
    row_root = jnp.where(col4row < 0, rows, row_root)
    row_sink_distance = _pick(sink_distance, row_root, _INF)
    to_other_tree = jnp.where(root[:, None, :] != row_root[..., None], label, _INF)
    leaves = (reach < row_sink_distance) & (jnp.min(to_other_tree, axis=2) < row_sink_distance)
    is_left = jnp.any(leaves[:, None, :] & (row_root[:, None, :] == rows[:, None]), axis=2)
    nearest = jnp.min(sink_distance, axis=1, keepdims=True)
    closed = ~is_left & (sink_distance < _INF)
    augments = (closed | (sink_distance == nearest)) & (sink_distance < _INF)
    return jnp.where(closed, sink_distance, nearest), augments


def _flip(
    sink: jax.Array,
    root: jax.Array,
    pred: jax.Array,
    chain: jax.Array,
    row4col: jax.Array,
    col4row: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Swaps matched and unmatched pairs along the paths from all roots to their sinks, if any."""
    num_rows, num_columns = col4row.shape[1], row4col.shape[1]
    rows = jnp.arange(num_rows, dtype=jnp.int32)
    columns = jnp.arange(num_columns, dtype=jnp.int32)
    last = jnp.take_along_axis(pred, jnp.minimum(sink, num_columns - 1), axis=1)
    paths = jnp.take_along_axis(chain[..., 1:], last[..., None], axis=1)
    paths = jnp.where((sink < num_columns)[..., None], paths, 0)
    paths = jax.lax.reduce(paths, np.int32(0), jax.lax.bitwise_or, (1,))  # trees share no row
    on_path = jnp.repeat(paths, _BITS, axis=1)[:, :num_rows] >> (rows % _BITS) & 1
    # The columns on a path are the sink and those matched to its rows so far.
    flips = _pick(on_path, jnp.where(row4col < 0, num_rows, row4col), 0) == 1
    flips = flips | ((row4col < 0) & (_pick(sink, root, num_columns) == columns))
    problem = jnp.arange(sink.shape[0])[:, None]
    # Rows beyond the last are dropped. They differ, too: a GPU need not order what is set.
    row = jnp.where(flips, pred, num_rows + columns)
    col4row = col4row.at[problem, row].set(columns, mode="drop", unique_indices=True)
    return jnp.where(flips, pred, row4col), col4row
