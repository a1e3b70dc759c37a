"""Costs of every type against exact sums: 64 bits keep what SciPy keeps, with and without x64."""

import warnings
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from pivq_jax.matching import match

SHAPES = ((24, 24), (24, 40), (40, 24))
RNG = np.random.default_rng(0)


def exact_total(cost: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Fraction:
    return sum((Fraction(cost[pair].item()) for pair in zip(rows, columns)), Fraction(0))


def check(cost: np.ndarray, given: np.ndarray | jax.Array, method: str, maximize: bool = False):
    """The matching of `given`, which holds `cost`, is as good as SciPy's, up to its gap."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = match(given, method, maximize)
    columns = np.asarray(result.columns)
    rows = np.flatnonzero(columns >= 0)
    assert len(set(columns[rows].tolist())) == len(rows) == min(cost.shape)
    best = exact_total(cost, *scipy.optimize.linear_sum_assignment(cost, maximize))
    excess = exact_total(cost, rows, columns[rows]) - best
    assert result.converged and result.gap >= 0
    assert (-excess if maximize else excess) <= Fraction(float(result.gap))
    return result, float(best)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("method", ["shortest_path", "auction"])
@pytest.mark.parametrize("shape", SHAPES)
def test_low_bits_of_float64_count(x64, method, shape):
    cost = 1e8 + RNG.random(shape)
    for maximize in (False, True):
        with jax.enable_x64(x64):
            given = [cost] + [jnp.asarray(cost)] * x64
            for array in given:
                result, best = check(cost, array, method, maximize)
                assert result.gap < 1e-5  # float32 has steps of 8 here
                assert result.cost.dtype == result.gap.dtype == (np.float64 if x64 else np.float32)
                np.testing.assert_allclose(result.cost, best, rtol=1e-14 if x64 else 1e-7)


def test_as_a_constant_under_jit_and_in_a_batch_under_vmap():
    cost = 1e8 + RNG.random((3, 16, 20))
    best = [scipy.optimize.linear_sum_assignment(problem)[1] for problem in cost]
    with jax.enable_x64(True):
        np.testing.assert_array_equal(jax.jit(jax.vmap(lambda c: match(c).columns))(cost), best)
    np.testing.assert_array_equal(jax.jit(lambda: match(cost).columns)(), best)


@pytest.mark.parametrize("axes", [(24, 1), (1, 24)])
def test_offsets_of_rows_and_columns_of_square_problems_do_not_matter(axes):
    cost = 1e8 * RNG.random(axes) + RNG.random((24, 24))
    assert check(cost, cost, "auction")[0].gap < 1e-5


def test_where_float32_does_not_suffice_the_gap_says_so():
    cost = 1e8 * RNG.random((1, 40)) + RNG.random((24, 40))  # columns may stay free here
    result, _ = check(cost, cost, "auction")
    assert 1 < result.gap < 1e4


@pytest.mark.parametrize("scale", [1e-300, 1e-40, 1e40, 1e300])
def test_the_range_of_float64(scale):
    with jax.enable_x64(True):
        cost = scale * RNG.normal(size=(2, 12, 20))
        for problem in cost:
            result, best = check(problem, jnp.asarray(problem), "shortest_path")
            assert 0 < result.gap < 1e-5 * abs(best)


def test_gradients_and_bad_problems_of_float64():
    with jax.enable_x64(True):
        cost = jnp.asarray(1e8 + RNG.random((4, 5, 9)))
        result = match(cost)
        gradient = jax.grad(lambda cost: match(cost).cost.sum() + match(cost).gap.sum())(cost)
        np.testing.assert_array_equal(gradient, jax.nn.one_hot(result.columns, 9))
        bad = cost.at[0, 0, 0].set(jnp.nan).at[1, 0, 0].set(-jnp.inf).at[2, 0].set(jnp.inf)
        again = match(bad)
    assert again.converged.tolist() == [False, False, False, True]
    assert (
        np.isnan(again.cost[:2]).all() and np.isinf(again.cost[2]) and np.isinf(again.gap[:3]).all()
    )
    np.testing.assert_array_equal(again.columns[3], result.columns[3])


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int32", "uint32", "int64", "uint64"])
def test_integers_are_exact_where_those_of_a_row_are_close(dtype, shape, maximize):
    kind = np.dtype(dtype)
    if dtype == "bool":
        cost = RNG.random(shape) < 0.2
    else:
        # The largest ones; float64, and SciPy with it, could not tell those of 64 bits apart.
        cost = np.iinfo(kind).max - RNG.integers(0, 100, shape).astype(kind)
    small = cost.astype(float) if dtype == "bool" else (cost - cost.min()).astype(float)
    rows, columns = scipy.optimize.linear_sum_assignment(small, maximize)
    best = exact_total(cost, rows, columns)
    for x64 in (False, True):
        with jax.enable_x64(x64):
            narrow = x64 or kind.itemsize < 8
            for array in [cost] + [jnp.asarray(cost)] * narrow:
                result = match(array, "shortest_path", maximize)
                found = np.asarray(result.columns)
                taken = np.flatnonzero(found >= 0)
                assert exact_total(cost, taken, found[taken]) == best
                assert result.gap < 0.5


def test_signed_integers_of_the_whole_range_do_not_wrap_around():
    cost = RNG.integers(-(2**31), 2**31 - 1, (24, 40)).astype(np.int32)
    for given in (cost, jnp.asarray(cost)):
        result, best = check(cost, given, "auction")
        assert result.gap < 1e-6 * abs(best)


def test_the_conversion_runs_under_strict_promotion():
    cost = 1e8 + RNG.random((5, 9))
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        for given in (cost, jnp.asarray(cost), jnp.asarray(cost).astype(jnp.int64)):
            assert match(given).converged
