"""Exact batched assignment in few sequential steps: bidding, then shortest augmenting paths."""

from typing import NamedTuple

import jax

from pivq_jax.matching.bidding import bid
from pivq_jax.matching.waves import augment_all


class StepCounts(NamedTuple):
    """Numbers of sequential steps taken by one batch, each int32 []."""

    rounds: jax.Array  # rounds of bidding
    waves: jax.Array  # waves of the shortest-path search
    searches: jax.Array  # waves that completed a search in at least one problem


def solve(cost: jax.Array) -> tuple[jax.Array, jax.Array, StepCounts]:
    """Solves cost float32 [B, N, K] of `certificate.prepare`, where +inf forbids a pair.

    Returns the column of each row, int32 [B, N], -1 where a problem has no complete matching; the
    column potentials, float32 [B, K], which if N < K are never positive, and 0 for unmatched
    columns; and the numbers of sequential steps.
    """
    offers, rounds = bid(cost)
    offers, waves, searches = augment_all(cost, offers)
    return offers.col4row, offers.prices, StepCounts(rounds, waves, searches)
