"""Exact assignment for a whole batch in few sequential steps: bidding, then shortest paths."""

from typing import NamedTuple

import jax

from pivq_jax.matching.bidding import bid
from pivq_jax.matching.waves import augment_all


class Steps(NamedTuple):
    """Sequential steps of a batch, each int32."""

    rounds: jax.Array  # of bidding
    waves: jax.Array  # of shortest paths
    searches: jax.Array  # waves that ended a search in some problem


def solve(cost: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Solves all problems of a batch in one loop of rounds and one loop of waves.

    Args:
      cost: float32 [B, N, K], N <= K, entries below 2 in size, or +inf (forbidden).

    Returns:
      columns: int32 [B, N], the column of each row; -1 for rows left over in a problem that has no
        complete matching.
      prices: float32 [B, K], column potentials; for N < K never positive, 0 on unmatched columns.
    """
    columns, prices, _ = solve_counted(cost)
    return columns, prices


def solve_counted(cost: jax.Array) -> tuple[jax.Array, jax.Array, Steps]:
    """`solve`, and the sequential steps it took."""
    offers, rounds = bid(cost)
    offers, turns = augment_all(cost, offers)
    return offers.column_of, offers.prices, Steps(rounds, *turns)
