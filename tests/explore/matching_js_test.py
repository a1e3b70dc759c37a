"""docs/explorer/matching.js beside `pivq_jax.matching.match` and SciPy."""

import numpy as np
import pytest
import scipy.optimize

from pivq_jax.matching import match
from tests.explore.node import run_js

SOLVE = """
answer(given.problems.map(([from, rows, columns]) =>
  [...match(given.costs.subarray(from, from + rows * columns), rows, columns)]));
"""


def solve(costs: list[np.ndarray], folder) -> list[list[int]]:
    """The columns that JavaScript finds for float64 [N, K] costs."""
    starts = np.cumsum([0, *(cost.size for cost in costs)])
    problems = [[int(start), *cost.shape] for start, cost in zip(starts, costs)]
    flat = np.concatenate([cost.ravel() for cost in costs]).astype(np.float64)
    return run_js("matching.js", "match", SOLVE, folder, costs=flat, problems=problems)


@pytest.mark.parametrize(
    "shapes",
    [
        {(16, 512): 20},
        pytest.param({(16, 512): 500, (5, 7): 250, (8, 8): 250}, marks=pytest.mark.slow),
    ],
)
def test_it_assigns_what_python_assigns(shapes, tmp_path):
    rng = np.random.default_rng(0)
    batches = [rng.uniform(size=(n, *shape)).astype(np.float32) for shape, n in shapes.items()]
    expected = [columns for batch in batches for columns in np.asarray(match(batch).columns)]
    found = solve([cost for batch in batches for cost in batch], tmp_path)
    assert found == [columns.tolist() for columns in expected]


def test_the_cost_is_minimal(tmp_path):
    rng = np.random.default_rng(1)
    kinds = {
        "ties": rng.integers(0, 3, (50, 6, 9)).astype(float),
        "conflict": rng.normal(size=(50, 12, 1)) + 10 * rng.uniform(size=(50, 1, 14)),
        "negative": rng.normal(size=(50, 10, 12)) * 1e6,
        "one column": rng.normal(size=(1, 1, 1)),
        "one row": rng.normal(size=(50, 1, 8)),
        "wide": rng.normal(size=(3, 64, 1024)),
    }
    costs = [cost for batch in kinds.values() for cost in batch]
    for cost, columns in zip(costs, solve(costs, tmp_path), strict=True):
        rows, best = scipy.optimize.linear_sum_assignment(cost)
        assert len(set(columns)) == len(cost)
        total, least = cost[rows, columns].sum(), cost[rows, best].sum()
        np.testing.assert_allclose(total, least, rtol=1e-12, atol=1e-9)


def test_forbidden_pairs_are_avoided(tmp_path):
    rng = np.random.default_rng(2)
    costs = np.where(rng.uniform(size=(50, 7, 9)) < 0.4, np.inf, rng.normal(size=(50, 7, 9)))
    costs[:, np.arange(7), np.arange(7)] = 5.0  # there is a complete assignment
    for cost, columns in zip(costs, solve(list(costs), tmp_path), strict=True):
        rows, best = scipy.optimize.linear_sum_assignment(cost)
        np.testing.assert_allclose(cost[rows, columns].sum(), cost[rows, best].sum(), rtol=1e-12)


REFUSED = {
    "[1, 2, 3, 4, 5, 6], 3, 2": "6 costs for 3 rows and 2 columns",
    "[1, 2, 3], 2, 2": "3 costs for 2 rows and 2 columns",
    "[1, NaN], 1, 2": "a cost is NaN",
    "[1, -Infinity], 1, 2": "a cost is NaN or -Infinity",
    "[Infinity, Infinity], 1, 2": "every assignment contains a forbidden pair",
    "[1, Infinity, 2, Infinity], 2, 2": "every assignment contains a forbidden pair",
}
CALL = """
const outcome = (call) => {
  try { return `${call()}`; } catch (error) { return `${error.name}: ${error.message}`; }
};
"""


def test_what_has_no_solution_is_refused(tmp_path):
    calls = ", ".join(f"() => match({arguments})" for arguments in REFUSED)
    body = f"{CALL} answer([{calls}].map(outcome));"
    answers = run_js("matching.js", "match", body, tmp_path)
    for message, answer in zip(REFUSED.values(), answers, strict=True):
        assert answer.startswith(f"RangeError: {message}")
