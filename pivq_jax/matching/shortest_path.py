"""Exact assignment of one problem at a time: greedy start, then shortest augmenting paths.

Source: R. Jonker and A. Volgenant, "A shortest augmenting path algorithm for dense and sparse
linear assignment problems", Computing 38, 1987; for N < K, D. F. Crouse, "On implementing 2D
rectangular assignment algorithms", IEEE Trans. Aerospace and Electronic Systems 52, 2016.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pivq_jax.matching.minima import DONE, INFINITE, from_key, to_key

try:
    from jax.experimental.xla_metadata import set_xla_metadata
except ImportError:  # an experimental part of JAX, which may move; it only makes the solver faster

    def set_xla_metadata(value: Any, **attributes: str) -> Any:  # type: ignore[misc]
        """Returns the value without attributes."""
        del attributes
        return value


_ONE_KERNEL = 4096  # columns; XLA may split wider arrays over threads, which one kernel cannot


class _Partial(NamedTuple):
    """A partial matching in which every matched pair is tight under the prices."""

    col4row: jax.Array  # int32 [N], -1 if free
    row4col: jax.Array  # int32 [K], -1 if free
    prices: jax.Array  # float32 [K]


# low, code, keys, pred, reached: see `_augment`
_Search = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def solve(cost: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Solves one problem, float32 [N, K]; argument and first two results as in `auction.solve`.

    Use `jax.lax.map` for a batch: under `vmap`, problems that are finished would continue to
    iterate and might never terminate.
    """
    partial = jax.jit(_augment_all)(cost, _greedy_start(cost))
    if cost.shape[1] <= _ONE_KERNEL:
        # XLA for CPU then compiles the call into one native function. Otherwise it launches one
        # kernel per operation and iteration, which takes longer than computing these short vectors.
        # Other platforms, and versions that do not know the attribute, ignore it.
        partial = set_xla_metadata(partial, xla_cpu_small_call="true", inlineable="false")
    return partial.col4row, partial.prices


def _augment_all(cost: jax.Array, partial: _Partial) -> _Partial:
    """Matches the free rows one after another."""
    num_rows = cost.shape[0]
    rows_iota = jnp.arange(num_rows, dtype=jnp.int32)

    def next_free(col4row: jax.Array) -> jax.Array:
        return jnp.min(jnp.where(col4row < 0, rows_iota, num_rows))

    def insert(state: tuple[jax.Array, _Partial]) -> tuple[jax.Array, _Partial]:
        row, partial = state
        partial, reachable = _augment(cost, row, partial)
        # A row without an augmenting path will never have one: the problem is infeasible, so stop.
        return jnp.where(reachable, next_free(partial.col4row), num_rows), partial

    # Each iteration matches one more row or ends the loop, so there are at most N iterations.
    start = (next_free(partial.col4row), partial)
    return jax.lax.while_loop(lambda state: state[0] < num_rows, insert, start)[1]


def _greedy_start(cost: jax.Array) -> _Partial:
    """Lets every row request its cheapest column; the first row to request a column gets it."""
    num_rows, num_columns = cost.shape
    columns_iota = jnp.arange(num_columns, dtype=jnp.int32)
    rows_iota = jnp.arange(num_rows, dtype=jnp.int32)
    prices = jnp.zeros(num_columns, jnp.float32)
    if num_rows == num_columns:
        # No column remains free, so prices need not be 0, and column minima are a better start.
        prices = from_key(jnp.min(to_key(cost), axis=0))
        prices = jnp.where(prices == jnp.inf, 0.0, prices)
    reduced = cost - prices
    best = jnp.min(reduced, axis=1)
    # Each row starts its search at a different column, so that few rows collide in case of ties.
    shift = rows_iota * (num_columns // num_rows)
    turned = columns_iota - shift[:, None]
    turned = jnp.where(turned < 0, turned + num_columns, turned)
    wish = jnp.min(jnp.where(reduced == best[:, None], turned, num_columns), axis=1) + shift
    wish = jnp.where(wish >= num_columns, wish - num_columns, wish)
    wish = jnp.where(best < jnp.inf, wish, num_columns)
    row4col = jnp.full(num_columns + 1, num_rows, jnp.int32).at[wish].min(rows_iota)
    won = (row4col[wish] == rows_iota) & (wish < num_columns)
    return _Partial(
        col4row=jnp.where(won, wish, -1),
        row4col=jnp.where(row4col == num_rows, -1, row4col)[:num_columns],
        prices=prices,
    )


def _augment(cost: jax.Array, row: jax.Array, partial: _Partial) -> tuple[_Partial, jax.Array]:
    """Matches one free row along a shortest path of reduced costs (dense Dijkstra)."""
    col4row, row4col, prices = partial
    num_columns = cost.shape[1]
    iota = jnp.arange(num_columns, dtype=jnp.int32)
    # Encodes the owner and the column in one number. The smallest code among the nearest columns is
    # that of a free column if there is one; otherwise ties would prolong the search.
    codes = (row4col + 1) * num_columns + iota

    def nearest(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        low = jnp.min(keys)
        return low, jnp.min(jnp.where(keys == low, codes, DONE))

    def searching(state: _Search) -> jax.Array:
        # Each iteration removes one matched column from the queue, so there are at most N.
        low, code = state[:2]
        return (low < INFINITE) & (code >= num_columns)

    def expand(state: _Search) -> _Search:
        low, code, keys, pred, reached = state
        owner, column = code // num_columns - 1, code % num_columns
        level = from_key(low)
        base = cost[owner, column] - prices[column] - level
        # Rounding must not move a distance below the frontier: columns leave the queue in order.
        onward = to_key(jnp.maximum(cost[owner] - prices - base, level))
        open_ = (keys != DONE) & (iota != column)
        pred = jnp.where(open_ & (onward < keys), owner, pred)
        keys = jnp.where(open_, jnp.minimum(onward, keys), DONE)
        return *nearest(keys), keys, pred, reached.at[column].set(level)

    keys = to_key(cost[row] - prices)
    far = jnp.full(num_columns, jnp.inf, jnp.float32)
    start = (*nearest(keys), keys, jnp.full(num_columns, row, jnp.int32), far)
    low, code, _, pred, reached = jax.lax.while_loop(searching, expand, start)
    reachable = low < INFINITE
    # Only columns that were reached change, and none if there is no augmenting path.
    change = jnp.where(reachable, jnp.minimum(reached - from_key(low), 0.0), 0.0)

    Flip = tuple[jax.Array, jax.Array, jax.Array]

    def flip(state: Flip) -> Flip:
        column, col4row, row4col = state
        owner = pred[column]
        return col4row[owner], col4row.at[owner].set(column), row4col.at[column].set(owner)

    _, col4row, row4col = jax.lax.while_loop(
        lambda state: state[0] >= 0, flip, (jnp.where(reachable, code, -1), col4row, row4col)
    )
    return _Partial(col4row, row4col, prices + change), reachable
