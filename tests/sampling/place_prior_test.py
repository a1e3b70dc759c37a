"""The prior over places, compared with all sets of a tiny codebook in all orders of its places."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.config.sections import PriorConfig
from pivq_jax.model.quantizer import place_vectors
from pivq_jax.sampling import CodeSpace, complete_sets, prior_bits
from pivq_jax.sampling.place_prior import PlacePrior, Slots, bits_in_order
from pivq_jax.sampling.prior import build_prior, initial_parameters, prior_loss
from tests.codec.priors import random_prior
from tests.sampling.prior_test import check_frequencies, check_independence

SPACE = CodeSpace(4, 10, places=2)  # two places with two stages each
OWNERS = np.array([0, 0, 1, 1, 1, 0, 0, 0, 1, 1])  # of five entries of each stage
VALUES = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
CODEBOOK = jnp.concatenate([jnp.asarray(place_vectors(2, 3))[OWNERS], VALUES], axis=1)
PRIOR = build_prior(SPACE, CODEBOOK, PriorConfig(width=8, depth=1, heads=2))
assert isinstance(PRIOR, PlacePrior)
SETS = np.array(list(itertools.product([0, 1], [2, 3, 4], [5, 6, 7], [8, 9])), np.int32)
ORDERS = np.array([[0, 1], [1, 0]])
PARAMS = random_prior(PRIOR, scale=0.5).params  # with which sets differ in probability
loss_of = jax.jit(prior_loss, static_argnames=("prior", "at_once"))


@functools.cache
def bits():
    """[orders, sets]"""
    orders = [np.tile(order, (len(SETS), 1)) for order in ORDERS]
    compute = jax.jit(bits_in_order, static_argnums=0)
    return np.array([compute(PRIOR, PARAMS, SETS, order) for order in orders])


def test_entries_are_sorted_into_slots():
    slots = Slots.of(SPACE, CODEBOOK)
    assert slots.entries.tolist() == [[[0, 1, -1], [5, 6, 7]], [[2, 3, 4], [8, 9, -1]]]
    for k in range(10):
        place, stage = divmod(int(slots.slot[k]), 2)
        assert place == OWNERS[k] and stage == k // 5
        np.testing.assert_array_equal(slots.values[place, stage, slots.index[k]], VALUES[k])
    codes = np.array([[9, 1, 7, 2], [0, 1, 5, 8]])  # the second has two of one slot
    assert slots.fits(codes).tolist() == [True, False]
    assert slots.table(codes).tolist() == [[[1, 2], [0, 1]], [[1, 0], [-1, 0]]]
    assert slots.table(codes, np.arange(4) < 2).tolist() == [
        [[1, -1], [-1, 1]],
        [[1, -1], [-1, -1]],
    ]


def test_the_sets_have_all_the_probability_in_each_order():
    np.testing.assert_allclose(np.exp2(-bits()).sum(1), 1, rtol=1e-5)
    assert np.abs(bits()[0] - bits()[1]).max() > 0.1  # which differ


def test_sets_that_no_draw_can_give_have_no_probability():
    assert np.isinf(prior_bits(PRIOR, PARAMS, np.array([[0, 1, 5, 8]]), jax.random.key(0)))


@pytest.mark.slow
def test_the_loss_is_the_mean_over_orders_and_bits_are_those_of_rows():
    keys = jax.random.split(jax.random.key(0), 2_000)
    loss = jax.jit(jax.vmap(lambda key: prior_loss(PRIOR, PARAMS, SETS, key)))(keys)
    # In every second set a share s of places, uniform in [0, 1], is given: E[s (1 - s)] = 1 / 6.
    turned = np.arange(len(SETS)) % 2 / 6
    error = np.std(loss, axis=0) / len(keys) ** 0.5
    expected = (1 - turned) * bits()[0] + turned * bits()[1]
    assert np.all(np.abs(np.mean(loss, axis=0) - expected) < 5 * error + 1e-4)
    key = jax.random.key(7)
    whole = loss_of(PRIOR, PARAMS, SETS, key)
    np.testing.assert_allclose(loss_of(PRIOR, PARAMS, SETS, key, 5), whole, rtol=1e-5)
    np.testing.assert_allclose(prior_bits(PRIOR, PARAMS, SETS, key), bits()[0], rtol=1e-5)


def test_sets_are_drawn_as_often_as_their_probability_says():
    drawn = complete_sets(PRIOR, PARAMS, jnp.zeros((20_000, 4), jnp.int32), jax.random.key(0))
    check_frequencies(drawn, SETS, np.exp2(-bits()[0]))


def test_completions_follow_from_what_is_given():
    """Of a whole place, or of one code of a place, which the others are drawn with."""
    given = np.tile([3, 8, 0, 0], (20_000, 1))
    drawn = complete_sets(PRIOR, PARAMS, given, jax.random.key(1), known=2)
    of = [i for i, row in enumerate(SETS) if row[1] == 3 and row[3] == 8]
    p = np.exp2(-bits()[1, of])  # place 1 first
    check_frequencies(drawn, SETS[of], p / p.sum())
    part = np.asarray(complete_sets(PRIOR, PARAMS, given[:500], jax.random.key(2), known=1))
    assert np.all((part == 3).any(1)) and len(np.unique(part, axis=0)) > 5
    assert PRIOR.slots.fits(part).all()


@pytest.mark.slow
def test_a_low_temperature_draws_what_is_likely():
    blank = jnp.zeros((500, 4), jnp.int32)
    shares = []
    for temperature in (1.0, 0.3):
        drawn = complete_sets(PRIOR, PARAMS, blank, jax.random.key(3), temperature=temperature)
        shares.append(np.mean(prior_bits(PRIOR, PARAMS, drawn, jax.random.key(4))))
    assert shares[1] < shares[0] - 0.5


def test_a_set_depends_neither_on_the_batch_nor_on_64_bits():
    check_independence(PRIOR, PARAMS, 4)


def test_the_smallest_temperature_draws_the_likeliest_codes():
    blank = jnp.zeros((6, 4), jnp.int32)
    coldest = complete_sets(PRIOR, PARAMS, blank, jax.random.key(2), 0, 1e-50)
    assert (np.asarray(coldest) == np.asarray(coldest)[0]).all()


def test_a_codebook_that_is_not_trained_is_refused():
    space, vectors = CodeSpace(100, 8_000, places=100), place_vectors(100, 3)
    owners = np.minimum(np.arange(8_000), 99)
    codebook = jnp.concatenate([jnp.asarray(vectors)[owners], jnp.zeros((8_000, 3))], 1)
    with pytest.raises(InputError, match="nearly all entries of the codebook belong to a few"):
        Slots.of(space, codebook)
    with pytest.raises(InputError, match="no entry for place 1 at stage 0, and a prior needs one"):
        Slots.of(space, codebook.at[1].set(codebook[0]))


@pytest.mark.slow
def test_before_training_codes_are_equally_likely():
    start = jax.jit(initial_parameters, static_argnums=0)(PRIOR, jax.random.key(0))
    found = prior_bits(PRIOR, start, SETS, jax.random.key(0))
    np.testing.assert_allclose(found, math.log2(2 * 3 * 3 * 2), rtol=1e-5)
