"""The number of sequential steps, which is what the auction is for."""

import jax
import numpy as np
import pytest
import scipy.optimize

from pivq_jax.matching import auction, bidding
from pivq_jax.matching.bidding import Offers
from pivq_jax.matching.certificate import prepare
from pivq_jax.matching.waves import augment_all


@jax.jit
def _steps(cost):
    steps = auction.solve(prepare(cost)[0])[2]
    return steps.rounds + steps.waves


def _distances(rows, columns):
    return np.square(rows[:, :, None] - columns).sum(-1).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(64, 128), (256, 512)])
def test_few_steps(shape):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(8, shape[0], 64))
    columns = rng.normal(size=(shape[1], 64))
    assert _steps(_distances(rows, columns)) <= 50
    centres = rng.normal(size=(8, shape[0] // 8, 64))
    pick = rng.integers(0, shape[0] // 8, (8, shape[0], 1))
    rows = np.take_along_axis(centres, pick, 1) + 0.15 * rows
    assert _steps(_distances(rows, columns)) <= 200


@pytest.mark.parametrize("least", [0, 600])
def test_square_problems_are_solved_with_decreasing_eps_and_without(least, monkeypatch):
    monkeypatch.setattr(bidding, "_LARGE", least)
    rng = np.random.default_rng(2)
    cost = np.float32([rng.random((16, 16)), rng.integers(0, 16, (16, 16)), np.eye(16)] * 2)
    cost[3:][rng.random((3, 16, 16)) < 0.3] = np.inf
    cost[:, range(16), range(16)] = np.minimum(cost[:, range(16), range(16)], 9.0)
    columns, _, steps = jax.jit(lambda cost: auction.solve(prepare(cost)[0]))(cost)
    for problem, found in zip(cost, columns):
        best = problem[scipy.optimize.linear_sum_assignment(problem)].sum()
        np.testing.assert_allclose(problem[range(16), found].sum(), best, rtol=1e-6)
        assert sorted(found.tolist()) == list(range(16))
    assert (steps.rounds >= 90) == (least == 0) and steps.rounds + steps.waves < 130


@pytest.mark.parametrize("shape", [(40, 40), (40, 70)])
def test_all_paths_turn_at_once(shape):
    """More rows than a word has bits, few bids: nearly all is left to paths of many rows."""
    rng = np.random.default_rng(1)
    cost = _distances(rng.normal(size=(4, shape[0], 2)), rng.normal(size=(shape[1], 2)))
    row4col = np.full((4, shape[1]), -1, np.int32)
    col4row = np.full((4, shape[0]), -1, np.int32)
    prices = np.zeros((4, shape[1]), np.float32)
    offers, waves, searches = jax.jit(augment_all)(cost, Offers(row4col, col4row, prices))
    for problem, columns, owners in zip(cost, offers.col4row, offers.row4col):
        best = problem[scipy.optimize.linear_sum_assignment(problem)].sum()
        np.testing.assert_allclose(problem[np.arange(shape[0]), columns].sum(), best, rtol=1e-5)
        np.testing.assert_array_equal(owners[columns], np.arange(shape[0]))
    assert searches < waves


def test_infeasible_and_tied_problems_end():
    cost = np.zeros((3, 6, 6), np.float32)
    cost[1, :, 1:] = np.inf
    cost[2] = np.inf
    columns, prices, _ = jax.jit(auction.solve)(cost)
    assert sorted(columns[0].tolist()) == list(range(6))
    assert (columns[1] >= 0).sum() == 1 and (columns[2] >= 0).sum() == 0
    assert np.isfinite(prices).all()
