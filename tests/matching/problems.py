"""Random assignment problems of many kinds, and the exact answers of SciPy in float64."""

import numpy as np
import scipy.optimize

KINDS = (
    "gaussian",
    "clustered",
    "integer",
    "signed",
    "duplicate_rows",
    "duplicate_columns",
    "low_rank",
    "line",
    "tiny",
    "huge",
    "forbidden",
    "infeasible",
    "nan",
)

SHAPES = ((7, 7), (7, 8), (1, 6), (1, 1), (16, 40), (24, 24), (24, 25))


def make(kind: str, batch: int, num_rows: int, num_columns: int, seed: int) -> np.ndarray:
    """float32 [batch, num_rows, num_columns]."""
    rng = np.random.default_rng(seed)
    shape = (batch, num_rows, num_columns)
    if kind == "integer":
        return rng.integers(0, 6, shape).astype(np.float32)
    if kind == "signed":
        return rng.normal(size=shape).astype(np.float32)
    dims = {"low_rank": 2, "line": 1}.get(kind, 16)
    rows = rng.normal(size=(batch, num_rows, dims))
    columns = rng.normal(size=(batch, num_columns, dims))
    if kind == "clustered":
        centres = rng.normal(size=(batch, 3, dims))
        pick = rng.integers(0, 3, (batch, num_rows))
        rows = np.take_along_axis(centres, pick[..., None], 1) + 0.05 * rows
    if kind == "duplicate_rows":
        rows = rows[:, rng.integers(0, max(num_rows // 3, 1), num_rows)]
    if kind == "duplicate_columns":
        columns = columns[:, rng.integers(0, max(num_columns // 3, 1), num_columns)]
    cost = np.square(rows[:, :, None] - columns[:, None]).sum(-1)
    cost *= {"tiny": 1e-12, "huge": 1e12}.get(kind, 1.0)
    if kind == "forbidden":
        cost[rng.random(shape) < 0.7] = np.inf
    if kind == "infeasible":
        # Two rows that only know one column, or a single row that knows none.
        cost[:, :2, 1:] = np.inf
        if num_rows == 1:
            cost[:] = np.inf
    if kind == "nan":
        place = (np.arange(batch), rng.integers(0, num_rows, batch))
        bad = np.array([np.nan, -np.inf])[rng.integers(0, 2, batch)]
        cost[(*place, rng.integers(0, num_columns, batch))] = bad
    return cost.astype(np.float32)


def optimum(cost: np.ndarray) -> float | None:
    """The least cost of one problem, or None if it has no answer."""
    if np.isnan(cost).any() or np.isneginf(cost).any():
        return None
    cost = cost.astype(np.float64)
    try:
        return cost[scipy.optimize.linear_sum_assignment(cost)].sum()
    except ValueError:  # infeasible
        return None


def check(cost: np.ndarray, result, exact: bool, prices: np.ndarray | None = None) -> None:
    """Compares the matching of a batch with SciPy's, problem by problem; prices are [batch, K]."""
    num_rows, num_columns = cost.shape[1:]
    columns = np.asarray(result.columns)
    assert columns.dtype == np.int32
    assert columns.min() >= 0 and columns.max() < num_columns
    assert all(len(set(row)) == num_rows for row in columns.tolist())
    gap, converged = np.asarray(result.gap), np.asarray(result.converged)
    assert (gap >= 0).all() and not np.isnan(gap).any()
    assert (np.isinf(gap) == ~converged).all()
    totals = np.asarray(result.cost)
    for index, problem in enumerate(cost):
        chosen, total, bound, ok = columns[index], totals[index], gap[index], converged[index]
        best = optimum(problem)
        if best is None:
            assert not ok
            continue
        if not ok:
            assert not exact
            continue
        wide = problem.astype(np.float64)
        found = wide[np.arange(num_rows), chosen].sum()
        size = np.abs(wide[np.isfinite(wide)]).mean()
        assert abs(total - found) <= 1e-6 * max(abs(found), num_rows * size)
        assert found - best <= bound + 1e-12 * max(abs(best), size)
        if exact:
            assert found - best <= 1e-6 * max(best, size)
        if prices is not None:
            duals = (wide - prices[index]).min(axis=1)
            assert bound <= 1e-5 * (np.abs(duals).sum() + np.abs(prices[index]).sum())
