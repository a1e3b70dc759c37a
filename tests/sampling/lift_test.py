"""Which codes go together: counts against NumPy, moves against every other there is."""

import functools
import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pivq_jax import sampling
from pivq_jax.sampling import CodeSpace
from pivq_jax.sampling.lift import improve_exchange

K, N = 24, 6
SPACE = CodeSpace(N, K)

improve = jax.jit(improve_exchange)


def sets(count: int, seed: int) -> np.ndarray:
    """Code sets from two groups of codes that never meet: the even and the odd ones."""
    rng = np.random.default_rng(seed)
    half = [np.sort(rng.choice(K // 2, N, replace=False)) for _ in range(count)]
    return 2 * np.stack(half) + rng.integers(0, 2, (count, 1))


def plausibility(codes: np.ndarray, lift: np.ndarray) -> float:
    return sum(lift[i, j] for i, j in itertools.combinations(codes, 2))


def test_log_lift_counts_as_numpy_does(monkeypatch):
    monkeypatch.setattr("pivq_jax.sampling.lift.BLOCK", 16)  # the last block is a shorter one
    codes = np.random.default_rng(0).integers(0, K, (50, N))  # multisets
    lift = np.asarray(sampling.log_lift(SPACE, codes))
    holds = np.zeros((50, K))
    for row, each in enumerate(codes):
        holds[row, each] = 1
    expected = np.outer(holds.sum(0), holds.sum(0)) / 50
    right = np.log((holds.T @ holds + 1) / (expected + 1))
    np.fill_diagonal(right, 0)
    np.testing.assert_allclose(lift, right, atol=1e-5)


@settings(max_examples=30)
@given(st.integers(0, 2**31 - 1), st.integers(0, N), st.integers(0, 2))
def test_moves_end_where_no_move_helps(seed, common, slack):
    """Against every single move, computed from scratch; the exchange keeps to the slack."""
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(K)
    codes, partners = drawn[:N], drawn[N : 2 * N].copy()
    partners[:common] = codes[:common]
    lift = rng.normal(size=(K, K)).astype(np.float32)
    lift += lift.T
    start = (codes != partners) & (rng.random(N) < 0.5)
    end = np.asarray(improve(codes, partners, start, lift, slack))
    assert abs(end.sum() - start.sum()) <= slack and not end[codes == partners].any()

    def value(exchanged: np.ndarray) -> float:
        return plausibility(np.where(exchanged, partners, codes), lift)

    best = value(end)
    assert best >= value(start) - 1e-3
    backs = [[], *([i] for i in np.flatnonzero(end))]
    forths = [[], *([i] for i in np.flatnonzero(~end & (codes != partners)))]
    for back, forth in itertools.product(backs, forths):
        moved = end.copy()
        moved[back], moved[forth] = False, True
        if abs(moved.sum() - start.sum()) <= slack:
            assert value(moved) <= best + 2e-3


def test_the_example_of_the_docstring():
    codes, partners = np.array([0, 1, 2, 3]), np.array([4, 5, 2, 6])
    lift = np.zeros((7, 7), np.float32)
    lift[[3, 4], [4, 3]], lift[[1, 6], [6, 1]] = -2, 2
    exchanged = improve(codes, partners, np.array([True, False, False, False]), lift, 0)
    assert np.where(exchanged, partners, codes).tolist() == [0, 1, 2, 6]


def test_recombined_sets_go_together_and_the_fraction_keeps_its_meaning():
    """Up to a quarter of the smaller part."""
    codes = sets(400, 0)
    lift = sampling.log_lift(SPACE, codes)
    codebook = np.random.default_rng(1).normal(size=(K, 4))
    a, b = codes[:200], codes[200:]
    mix = functools.partial(sampling.recombine, SPACE, codebook, a, b, jax.random.key(0))
    for fraction in (0.0, 0.25, 0.5, 1.0):
        made = np.asarray(mix(fraction, lift))
        for row, first, second in zip(made, map(set, a), map(set, b), strict=True):
            assert len({*row}) == N and first & second <= {*row} <= first | second
            differ, slack = len(second - first), min(fraction, 1 - fraction) / 4
            found = len({*row} - first)
            assert abs(found - np.round(fraction * differ)) <= np.round(slack * differ)
    table = np.asarray(lift)
    better, plain = (
        np.mean([plausibility(row, table) for row in np.asarray(made)])
        for made in (mix(0.5, lift), mix(0.5))
    )
    assert better > plain


def test_many_parents_and_multisets():
    codes = np.sort(np.random.default_rng(0).integers(0, K, (30, N)), axis=-1)
    space = CodeSpace(N, K, "nearest")
    lift = sampling.log_lift(space, codes)
    codebook = np.random.default_rng(1).normal(size=(K, 4))
    parents = codes.reshape(3, 10, N)
    made = sampling.recombine_many(space, codebook, parents, jax.random.key(0), lift=lift)
    for row, *group in zip(np.asarray(made), *parents, strict=True):
        assert {*row} <= set(np.concatenate(group))


@pytest.mark.parametrize(
    "codes, fault",
    [
        (np.zeros((0, N), np.int32), "at least one image"),
        (np.zeros(N, np.int32), r"\[M, 6\]"),
        (np.full((2, N), K), "range from 24 to 24"),
    ],
)
def test_codes_that_cannot_be_counted_are_refused(codes, fault):
    with pytest.raises(ValueError, match=fault):
        sampling.log_lift(SPACE, codes)


def test_a_lift_that_does_not_fit_is_refused():
    codes, positional = sets(2, 0), CodeSpace(N, K, "positional")
    pair = np.zeros((K, 4)), codes, codes, jax.random.key(0), 0.5
    with pytest.raises(ValueError, match="give the result of log_lift"):
        sampling.recombine(SPACE, *pair, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="leave lift out"):
        sampling.recombine(positional, *pair, np.zeros((K, K)))
    with pytest.raises(ValueError, match="positional codes have no lift"):
        sampling.log_lift(positional, codes)
