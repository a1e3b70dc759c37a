"""`match` under the transformations of JAX, and on input that no method may accept or hang on."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from pivq_jax.matching import METHODS, match
from tests.matching import problems

COST = problems.make("gaussian", 6, 5, 9, seed=0)
QUICK = ("shortest_path", "auction")
OFTEN = [
    method if method in QUICK else pytest.param(method, marks=pytest.mark.slow)
    for method in METHODS
]


def test_what_is_no_problem_is_refused():
    for cost in (np.zeros(3, np.float32), np.zeros((2, 3), np.complex64), np.full((2, 3), None)):
        with pytest.raises(ValueError, match="cost has"):
            match(cost)
    greedy = partial(match, method="greedy")  # the quickest to trace
    jax.eval_shape(greedy, jax.ShapeDtypeStruct((46_340, 46_340), jnp.float32))
    with pytest.raises(ValueError, match=r"\(N \+ 1\) \* K must be below 2\^31"):
        jax.eval_shape(greedy, jax.ShapeDtypeStruct((46_340, 46_341), jnp.float32))
    with pytest.raises(ValueError, match="shortest_path"):
        match(COST, "hungarian")


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 2, 3), (0, 3, 2), (2, 0, 5)])
def test_an_empty_problem_costs_nothing_and_an_empty_batch_has_no_results(shape):
    result = match(np.zeros(shape, np.float32))
    assert result.columns.tolist() == np.full(shape[:-1], -1).tolist()  # no rows, or none to take
    assert result.columns.dtype == jnp.int32 and result.converged.dtype == bool
    assert result.cost.tolist() == result.gap.tolist() == np.zeros(shape[:-2]).tolist()
    assert result.converged.shape == shape[:-2] and result.converged.all()


@pytest.mark.parametrize("method", QUICK)
def test_more_rows_than_columns_leave_rows_without_one(method):
    cost = np.swapaxes(COST, 1, 2)  # 9 rows, 5 columns
    result = jax.jit(partial(match, method=method))(cost)
    for problem, columns, total in zip(cost, np.asarray(result.columns), result.cost):
        rows = np.flatnonzero(columns >= 0)
        best = scipy.optimize.linear_sum_assignment(problem)
        np.testing.assert_array_equal((rows, columns[rows]), best)
        assert (np.delete(columns, rows) == -1).all()
        np.testing.assert_allclose(total, problem[best].sum(), rtol=1e-6)
    gradient = jax.grad(lambda cost: match(cost, method).cost.sum())(jnp.asarray(cost))
    np.testing.assert_array_equal(gradient, jax.nn.one_hot(result.columns, 5))


@pytest.mark.parametrize("method", QUICK)
def test_maximizes(method):
    result = match(COST, method, maximize=True)
    best = [scipy.optimize.linear_sum_assignment(problem, maximize=True) for problem in COST]
    np.testing.assert_array_equal(result.columns, [columns for _, columns in best])
    totals = [problem[pairs].sum() for problem, pairs in zip(COST, best)]
    np.testing.assert_allclose(result.cost, totals, rtol=1e-6)
    gradient = jax.grad(lambda cost: match(cost, method, True).cost.sum())(jnp.asarray(COST))
    np.testing.assert_array_equal(gradient, jax.nn.one_hot(result.columns, 9))


def test_when_maximizing_minus_infinity_forbids_and_infinity_is_no_number():
    cost = COST.copy()
    cost[0, 0, 1:], cost[1, 0, 0] = -np.inf, np.inf
    result = match(cost, maximize=True)
    assert result.columns[0, 0] == 0 and result.converged.tolist() == [True, False] + 4 * [True]


@pytest.mark.parametrize("method", OFTEN)
def test_bad_problems_have_no_cost_and_leave_their_neighbours_alone(method):
    cost = COST.copy()
    cost[0, 0, np.argmax(cost[0, 0])] = np.nan  # no entry that any method would choose
    cost[1, 1, np.argmax(cost[1, 1])] = -np.inf
    cost[2, :2, 1:] = np.inf
    result = match(cost, method)
    assert np.isnan(result.cost[:2]).all() and result.cost[2] == np.inf
    assert np.isfinite(result.cost[3:]).all() and np.isinf(result.gap[:3]).all()
    assert result.converged.tolist() == [False] * 3 + [True] * 3
    np.testing.assert_array_equal(result.columns[3:], match(COST, method).columns[3:])
    assert all(len(set(row)) == 5 for row in result.columns.tolist())


@pytest.mark.parametrize("method", QUICK)
def test_vmap_jit_and_map_agree(method):
    want = match(COST, method).columns
    one = lambda cost: match(cost, method).columns  # noqa: E731
    np.testing.assert_array_equal(jax.jit(lambda c: jax.lax.map(one, c))(COST), want)
    nested = jax.jit(jax.vmap(jax.vmap(one)))(COST.reshape(2, 3, 5, 9))
    np.testing.assert_array_equal(nested.reshape(6, 5), want)
    assert jax.jit(jax.vmap(one))(jnp.zeros((0, 2, 3))).shape == (0, 2)


@pytest.mark.parametrize("method", OFTEN)
def test_works_where_users_want_64_bits_or_strict_promotion(method):
    want = match(COST, method)
    with jax.enable_x64(True):
        found = match(COST, method)
    assert found.columns.dtype == jnp.int32 and found.cost.dtype == jnp.float32
    np.testing.assert_array_equal(found.columns, want.columns)
    if method != "sinkhorn":  # ott-jax does not
        with jax.numpy_dtype_promotion("strict"):
            assert match(COST, method).converged.all()


@pytest.mark.parametrize("method", OFTEN)
def test_gradient_is_the_matching(method):
    columns = match(COST, method).columns
    gradient = jax.jit(jax.grad(lambda cost: match(cost, method).cost.sum()))(COST)
    np.testing.assert_array_equal(gradient, jax.nn.one_hot(columns, 9))

    def around(latents):
        """A quantizer's losses: the assignment inside does not stop what flows around it."""
        cost = jnp.square(latents[:, :, None] - jnp.arange(9.0)).astype(jnp.float32)
        result = match(cost, method)
        return jnp.sum(jnp.square(latents - result.columns)) + result.gap.sum()

    latents = jnp.linspace(0.0, 8.0, 10).reshape(2, 5)
    assert np.isfinite(jax.grad(around)(latents)).all()


def test_half_precision_is_upcast_and_a_batch_may_be_deep_or_none():
    cost = jnp.asarray(COST, jnp.bfloat16)
    result = match(cost)
    assert result.cost.dtype == jnp.float32
    problems.check(np.asarray(cost.astype(jnp.float32)), result, exact=True)
    assert match(COST[0]).columns.shape == (5,)
    assert match(COST.reshape(1, 2, 3, 5, 9)).gap.shape == (1, 2, 3)


@pytest.mark.parametrize("scale", [1e-30, 1e36])
def test_scale_does_not_matter(scale):
    cost = COST * np.float32(scale)
    for method in QUICK:
        result = match(cost, method)
        assert result.converged.all()
        np.testing.assert_array_equal(result.columns, match(COST, method).columns)


@pytest.mark.parametrize("method", QUICK)
@pytest.mark.parametrize("mask", [1e4, np.finfo(np.float32).max])
@pytest.mark.parametrize("share", [0.02, 0.8])
def test_huge_costs_hide_no_others(method, mask, share):
    shape = (16, 40)
    rng = np.random.default_rng(0)
    cost = rng.random((6, *shape)).astype(np.float32)
    cost[rng.random(cost.shape) < share] = mask
    cost[:, np.arange(shape[0]), rng.permutation(shape[1])[: shape[0]]] = 0.9  # it can do without
    result = match(cost, method)
    found = np.take_along_axis(np.float64(cost), np.asarray(result.columns)[..., None], 2).sum(
        (1, 2)
    )
    best = np.array([problems.optimum(problem) for problem in cost])
    gap = np.asarray(result.gap)
    assert (best < shape[0]).all() and result.converged.all()
    assert (found - best <= gap).all() and (gap < 1e-4 * best).all(), gap / best
    np.testing.assert_allclose(found, best, rtol=1e-6)


SHARDED = """
import re
import jax, numpy as np
from jax.sharding import PartitionSpec as P
from pivq_jax.matching import match
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
cost = np.random.default_rng(0).normal(size=(16, 12, 20)).astype(np.float32)
solve = lambda cost: match(cost, "auction")
mapped = jax.shard_map(
    solve, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
sharded = jax.jit(mapped).lower(cost).compile()
assert not re.search("all-reduce|all-gather|all-to-all|collective-permute", sharded.as_text())
split = jax.device_put(cost, jax.NamedSharding(mesh, P("data")))
np.testing.assert_array_equal(sharded(split).columns, solve(cost).columns)
print("same")
"""


def test_sharded_over_eight_devices_without_a_collective(commands):
    done = commands.run(code=SHARDED, devices=8)
    assert done.code == 0 and done.stdout.strip() == "same", done.stderr
