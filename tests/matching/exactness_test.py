"""Both exact methods against SciPy in float64; the inexact ones against their own certificate."""

import functools
import importlib.util
import sys

import hypothesis
import jax
import numpy as np
import pytest
import scipy.optimize
from hypothesis import strategies

from pivq_jax.matching import auction, certificate, match, shortest_path
from tests.matching import problems

EXACT = {
    "shortest_path": functools.partial(jax.lax.map, shortest_path.solve),
    "auction": auction.solve,
}


@functools.cache
def _jitted(method):
    return jax.jit(functools.partial(match, method=method))


@functools.cache
def _prices(method):
    def prices(cost):
        safe, scale, _ = certificate.prepare(cost)
        return EXACT[method](safe)[1] * scale[:, None]

    return jax.jit(prices)


def _check(cost, method, with_prices=True):
    prices = np.asarray(_prices(method)(cost), float) if with_prices else None
    problems.check(cost, _jitted(method)(cost), True, prices)


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("shape", [(7, 7), (16, 40)])
def test_exact_on_every_kind(method, shape):
    for seed, kind in enumerate(problems.KINDS):
        cost = problems.make(kind, 8, *shape, seed)
        _check(cost, method, with_prices=shape == (16, 40))  # another program to compile


@pytest.mark.parametrize("method", ["greedy", "sinkhorn"])
@pytest.mark.parametrize("shape", [(7, 7), (16, 40)])
def test_inexact_stays_within_its_gap(method, shape):
    for seed, kind in enumerate(problems.KINDS):
        cost = problems.make(kind, 8, *shape, seed)
        problems.check(cost, _jitted(method)(cost), exact=False)


@pytest.mark.slow
@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("shape", [*problems.SHAPES, (64, 128), (128, 128)])
def test_exact_on_thousands(method, shape):
    """13 kinds of 128 problems for each small shape, and of 4 larger ones."""
    batch = 128 if shape in problems.SHAPES else 4
    for seed, kind in enumerate(problems.KINDS):
        cost = problems.make(kind, batch, *shape, 1000 + seed)
        _check(cost, method)


@pytest.mark.slow
@pytest.mark.parametrize("method", EXACT)
@hypothesis.settings(max_examples=60, derandomize=True)
@hypothesis.given(data=strategies.data())
def test_exact_on_what_hypothesis_finds(method, data):
    entry = strategies.one_of(
        strategies.floats(-100, 100, width=32),
        strategies.integers(-3, 3).map(float),
        strategies.sampled_from([0.0, -0.0, 1e-12, 1e12, float("inf")]),
    )
    shape = data.draw(strategies.sampled_from([(3, 3), (4, 6), (6, 7)]))
    size = 8 * shape[0] * shape[1]
    values = data.draw(strategies.lists(entry, min_size=size, max_size=size))
    cost = np.array(values, np.float32).reshape(8, *shape)
    _check(cost, method)


def test_without_an_experimental_part_of_jax_it_is_as_exact(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax.experimental.xla_metadata", None)
    spec = importlib.util.spec_from_file_location("alone", shortest_path.__file__)
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    cost = np.random.default_rng(0).random((5, 9), np.float32)
    columns = jax.jit(alone.solve)(cost)[0]
    assert columns.tolist() == scipy.optimize.linear_sum_assignment(cost)[1].tolist()
