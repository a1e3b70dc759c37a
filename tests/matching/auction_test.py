"""The number of sequential steps, which is what the auction is for."""

import jax
import numpy as np
import pytest

from pivq_jax.matching import auction
from pivq_jax.matching.certificate import prepare


@jax.jit
def _steps(cost):
    _, _, steps = auction.solve_counted(prepare(cost)[0])
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


def test_infeasible_and_tied_problems_end():
    cost = np.zeros((3, 6, 6), np.float32)
    cost[1, :, 1:] = np.inf
    cost[2] = np.inf
    columns, prices, _ = jax.jit(auction.solve_counted)(cost)
    assert sorted(columns[0].tolist()) == list(range(6))
    assert (columns[1] >= 0).sum() == 1 and (columns[2] >= 0).sum() == 0
    assert np.isfinite(prices).all()
