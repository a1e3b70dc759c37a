"""Jacobi bidding: all free rows of all problems bid at once, for many rounds in one loop.

Source: D. P. Bertsekas, "The auction algorithm: a distributed relaxation method for the assignment
problem", Annals of Operations Research 14, 1988. Prices here are potentials that are subtracted
from the cost, so they fall where an auctioneer's prices would rise.

With eps = 0, a round preserves complementary slackness: every matched pair is tight, i.e. the
column is the cheapest one for its row. If N < K, prices start at 0 and a column that has never been
sold keeps price 0, as the dual of the rectangular problem requires. Any number of rounds can
therefore be followed by shortest augmenting paths, and the result is exact. If N = K, no column is
free at the end, any prices are dual feasible, and the rounds may start with eps > 0, which ends
price wars between similar rows earlier and saves steps where there are many rows. Rows that are no
longer tight when eps decreases are released.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pivq_jax.matching.minima import least, least_two

_ROUNDS = 90  # with eps = 0; if N = K is large, the same number with eps > 0 precedes them
_LARGE = 600  # least number of rows with eps > 0; a few hundred take half the steps without
_PATIENCE = 4  # rounds without progress; after that, shortest paths need fewer steps
_START, _END = 0.06, 0.0006  # eps of the first and last scaled round, in units of the spread


class Offers(NamedTuple):
    """A partial matching and its prices."""

    row4col: jax.Array  # int32 [B, K], the row of each column; -1 if free
    col4row: jax.Array  # int32 [B, N], the column of each row; -1 if free
    prices: jax.Array  # float32 [B, K]


def bid(cost: jax.Array) -> tuple[Offers, jax.Array]:
    """Bids from an empty matching until all rows are matched or rounds stop making progress.

    Returns the offers, tight up to rounding, with price 0 exactly for unsold columns if N < K, and
    the number of rounds, int32 [].
    """
    batch, num_rows, num_columns = cost.shape
    square = num_rows == num_columns
    scaled = _ROUNDS if square and num_rows >= _LARGE else 0
    prices = jnp.zeros((batch, num_columns), jnp.float32)
    spread = jnp.zeros(batch, jnp.float32)
    if square:
        prices = jnp.min(cost, axis=1)
        prices = jnp.where(prices == jnp.inf, 0.0, prices)
    if scaled:
        finite = jnp.isfinite(cost)
        spread = _typical(cost - jnp.min(cost, axis=2, keepdims=True), finite)
    offers = Offers(
        jnp.full((batch, num_columns), -1, jnp.int32),
        jnp.full((batch, num_rows), -1, jnp.int32),
        prices,
    )

    State = tuple[jax.Array, jax.Array, jax.Array, Offers]

    def turn(state: State) -> State:
        count, left, idle, offers = state
        eps = None
        if scaled:
            eps = _START * spread * (_END / _START) ** (count / _ROUNDS)
            eps = jnp.where(count < scaled, eps, 0.0)
        offers, any_bid = _round(cost, offers, eps)
        free = jnp.sum(offers.col4row < 0, dtype=jnp.int32)  # also under x64
        idle = jnp.where((free < left) | (count < scaled), 0, idle + 1)
        idle = jnp.where(any_bid, idle, _PATIENCE)
        return count + 1, jnp.minimum(free, left), idle, offers

    def going(state: State) -> jax.Array:
        count, left, idle, _ = state
        return ((left > 0) & (idle < _PATIENCE) & (count < scaled + _ROUNDS)) | (count < scaled)

    everyone = jnp.int32(batch * num_rows)
    state = (jnp.int32(0), everyone, jnp.int32(0), offers)
    rounds, _, _, offers = jax.lax.while_loop(going, turn, state)
    if scaled:
        reduced = cost - offers.prices[:, None, :]
        offers = _release(reduced, jnp.min(reduced, axis=2), offers, 0.0)
    return offers, rounds


def _typical(excess: jax.Array, finite: jax.Array) -> jax.Array:
    """Returns the mean of those entries [B, N, K] that are at most the mean; float32 [B].

    Of all, it would be the mean of a few huge costs, which mark pairs to avoid. Prices that change
    by a part of that lose what the other costs differ in.
    """

    def mean(counted: jax.Array) -> jax.Array:
        count = jnp.sum(counted, axis=(1, 2), dtype=jnp.float32)
        return jnp.sum(jnp.where(counted, excess, 0.0), axis=(1, 2)) / jnp.maximum(count, 1)

    whole = mean(finite)
    low = mean(finite & (excess <= whole[:, None, None]))
    return jnp.where(low > 0, low, whole)


def _release(reduced: jax.Array, best: jax.Array, offers: Offers, eps: float | jax.Array) -> Offers:
    """Frees rows whose column costs over `eps` more than their cheapest one, beyond rounding."""
    row4col, col4row, prices = offers
    iota = jnp.arange(reduced.shape[2], dtype=jnp.int32)
    own = jnp.min(jnp.where(iota == col4row[..., None], reduced, jnp.inf), axis=2)
    rounding = 2.0**-23 * (jnp.abs(own) + jnp.abs(best))
    col4row = jnp.where(own - best > eps + rounding, -1, col4row)
    kept = jnp.take_along_axis(col4row, jnp.maximum(row4col, 0), axis=1) == iota
    return Offers(jnp.where(kept, row4col, -1), col4row, prices)


def _round(cost: jax.Array, offers: Offers, eps: jax.Array | None) -> tuple[Offers, jax.Array]:
    """Runs one round. `eps` is float32 [B], or None for eps = 0, where no row needs releasing."""
    num_rows, num_columns = cost.shape[1:]
    columns_iota = jnp.arange(num_columns, dtype=jnp.int32)
    rows_iota = jnp.arange(num_rows, dtype=jnp.int32)
    reduced = cost - offers.prices[:, None, :]
    if eps is not None:
        offers = _release(reduced, jnp.min(reduced, axis=2), offers, eps[:, None])
    row4col, col4row, prices = offers

    # The cheapest column. Ties go to a free column if there is one; each row starts its search at a
    # different column, so that few rows collide.
    shift = rows_iota * (num_columns // num_rows)
    turned = columns_iota - shift[:, None]
    turned = jnp.where(turned < 0, turned + num_columns, turned)
    rank = jnp.where(row4col < 0, 0, num_columns)[:, None, :] + turned
    best, second, rank = least_two(reduced, rank)
    wish = rank % num_columns + shift
    wish = jnp.where(wish >= num_columns, wish - num_columns, wish)

    # A bid lowers the price until the row is indifferent between its two best columns, and by eps
    # more. Without a change in price, two rows would take a column from each other forever.
    step = jnp.where(second < jnp.inf, second - best, 0.0)
    if eps is not None:
        step = step + eps[:, None]
    bids = (col4row < 0) & (best < jnp.inf) & ((rank < num_columns) | (step > 0))
    wished = (columns_iota == wish[..., None]) & bids[..., None]
    offer = jnp.where(wished, prices[:, None, :] - step[..., None], jnp.inf)
    bidder = jnp.broadcast_to(rows_iota[:, None], offer.shape)
    low, winner = least(offer, bidder, axis=1)
    sold = low < jnp.inf
    row4col = jnp.where(sold, winner, row4col)
    prices = jnp.where(sold, low, prices)
    col4row = jnp.where(bids, wish, col4row)
    holder = jnp.take_along_axis(row4col, jnp.maximum(col4row, 0), axis=1)
    col4row = jnp.where(holder == rows_iota, col4row, -1)
    return Offers(row4col, col4row, prices), jnp.any(bids)
