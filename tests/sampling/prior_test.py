"""The prior over sets, compared with all orders of all sets of a tiny codebook."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pivq_jax.sampling.prior import (
    SetPrior,
    complete_sets,
    prior_bits,
    prior_loss,
    pseudo_likelihood,
    reveal_counts,
)
from tests.codec.priors import random_prior

K, N = 5, 3
PRIOR = SetPrior(K, width=8, depth=1, heads=2)
SETS = np.array(list(itertools.combinations(range(K), N)), np.int32)


PARAMS = random_prior(PRIOR, scale=1.0).params  # with which sets differ in probability
apply = jax.jit(PRIOR.apply)


def log_p(codes, count):
    """Log probabilities of the next code, given the first `count` of each row."""
    known = np.broadcast_to(np.arange(N) < count, codes.shape)
    return np.asarray(apply({"params": PARAMS}, codes, known), np.float64)


@functools.cache
def log_p_of_orders():
    """[sets, orders]: the log probability that a set is drawn in an order."""
    orders = [SETS[:, list(order)] for order in itertools.permutations(range(N))]
    rows = np.arange(len(SETS))
    steps = [[log_p(codes, m)[rows, codes[:, m]] for m in range(N)] for codes in orders]
    return np.sum(steps, axis=1).T


def test_the_sets_have_all_the_probability():
    assert np.exp(log_p_of_orders()).sum() == pytest.approx(1, abs=1e-5)


def test_known_codes_are_not_predicted_again_and_their_order_has_no_effect():
    codes = SETS[:4]
    logs = log_p(codes, 2)
    assert np.all(np.isneginf(logs[np.arange(4)[:, None], codes[:, :2]]))
    np.testing.assert_allclose(np.exp(logs).sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(logs, log_p(codes[:, [1, 0, 2]], 2), atol=1e-5)
    unread = codes.copy()
    unread[:, 2] = 0
    np.testing.assert_array_equal(logs, log_p(unread, 2))


def test_the_loss_is_the_mean_over_orders():
    keys = jax.random.split(jax.random.key(0), 4_000)
    loss = jax.jit(jax.vmap(lambda key: prior_loss(PRIOR, PARAMS, SETS, key)))(keys)
    expected = -(log_p_of_orders().mean(1) + math.log(math.factorial(N))) / math.log(2)
    error = np.std(loss, axis=0) / len(keys) ** 0.5
    assert np.all(np.abs(np.mean(loss, axis=0) - expected) < 5 * error + 1e-4)


def test_a_few_sets_at_a_time_have_the_same_loss():
    loss = jax.jit(prior_loss, static_argnames=("prior", "at_once"))
    key = jax.random.key(7)
    whole = loss(PRIOR, PARAMS, SETS, key)
    np.testing.assert_allclose(loss(PRIOR, PARAMS, SETS, key, 3), whole, rtol=1e-5)


def test_with_many_orders_the_bits_are_those_of_the_set():
    exact = -np.log2(np.exp(log_p_of_orders()).sum(1))
    one = np.mean([prior_bits(PRIOR, PARAMS, SETS, jax.random.key(i), orders=1) for i in range(30)])
    many = np.asarray(prior_bits(PRIOR, PARAMS, SETS, jax.random.key(0), orders=3_000))
    assert one > exact.mean() + 0.01  # a bound, far from tight
    np.testing.assert_allclose(many, exact, atol=0.1)


def test_sets_are_drawn_as_often_as_their_probability_says():
    count = 20_000
    blank = jnp.zeros((count, N), jnp.int32)
    drawn = np.asarray(complete_sets(PRIOR, PARAMS, blank, jax.random.key(0)))
    left = count
    for row, p in zip(SETS, np.exp(log_p_of_orders()).sum(1), strict=True):
        found = np.all(drawn == row, axis=1).sum()
        assert found / count == pytest.approx(p, abs=5 * (p / count) ** 0.5 + 1e-3)
        left -= found
    assert not left


@pytest.mark.parametrize("known, passes, temperature", [(0, 1, 1.0), (2, 9, 0.5)])
def test_completions_keep_what_is_given_and_are_sets(known, passes, temperature):
    made = complete_sets(
        *(PRIOR, PARAMS, SETS, jax.random.key(1)),
        known=known,
        passes=passes,
        temperature=temperature,
    )
    for row, start in zip(np.asarray(made), SETS, strict=True):
        assert list(row) == sorted(set(row.tolist())) and len(row) == N
        assert set(start[:known].tolist()) <= set(row.tolist())


def test_the_smallest_temperature_draws_the_likeliest_code():
    blank = jnp.zeros((4, N), jnp.int32)
    drawn = complete_sets(PRIOR, PARAMS, blank, jax.random.key(0), 0, 1e-50)
    order = np.zeros((1, N), np.int32)
    for count in range(N):
        order[0, count] = np.argmax(log_p(order, count))
    np.testing.assert_array_equal(drawn, np.tile(np.sort(order), (4, 1)))


def test_a_set_depends_neither_on_the_batch_nor_on_64_bits():
    blank = jnp.zeros((6, N), jnp.int32)
    all_six = complete_sets(PRIOR, PARAMS, blank, jax.random.key(2))
    first = complete_sets(PRIOR, PARAMS, blank[:2], jax.random.key(2))
    np.testing.assert_array_equal(all_six[:2], first)
    with jax.enable_x64(True):
        again = complete_sets(PRIOR, PARAMS, blank, jax.random.key(2))
    np.testing.assert_array_equal(again, all_six)
    # JAX shuffles many rows in more rounds than few.
    many, few = (
        prior_bits(PRIOR, PARAMS, np.tile(SETS, (count, 1)), jax.random.key(2), 2)
        for count in (100, 10)
    )
    np.testing.assert_allclose(many[:100], few, rtol=1e-5)


@pytest.mark.parametrize("known, passes", [(N + 1, 4), (0, 0)])
def test_completions_out_of_range_are_refused(known, passes):
    with pytest.raises(ValueError, match=rf"passes = {passes}, known = {known}"):
        complete_sets(PRIOR, PARAMS, SETS, jax.random.key(0), known=known, passes=passes)


@settings(max_examples=200)
@given(st.integers(0, 300), st.integers(1, 40))
def test_passes_add_all_missing_codes_the_first_ones_slowly(missing, passes):
    counts = reveal_counts(missing, passes)
    assert counts.sum() == missing and len(counts) == min(missing, passes)
    assert np.all(counts >= 1)
    if missing >= 4 * passes >= 8:
        assert counts[0] < counts[-1]


@pytest.mark.parametrize("passes", [2, 7])  # 7 are more than there are codes
def test_the_pseudo_likelihood_is_that_of_each_group_given_the_others(passes):
    groups = [[n for n in range(N) if n % passes == group] for group in range(min(passes, N))]
    expected = 0
    for hidden in groups:
        known = np.array([[n not in hidden for n in range(N)]] * len(SETS))
        logs = np.asarray(PRIOR.apply({"params": PARAMS}, SETS, known))
        expected += np.take_along_axis(logs, SETS[:, hidden], 1).sum(1)
    found = pseudo_likelihood(PRIOR, PARAMS, SETS, passes)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
