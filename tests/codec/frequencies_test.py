"""Levels of entries."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pivq_jax.codec.frequencies import entry_levels, weights_of


def test_levels_follow_the_odds():
    # Of 100 images, 1, 10, 50 and 99 contain an entry, and none contains the last.
    codes = [[0]] * 1 + [[1]] * 10 + [[2]] * 50 + [[3]] * 39
    levels = entry_levels(codes, 5)
    odds = np.array([1.5 / 99.5, 10.5 / 90.5, 50.5 / 50.5, 39.5 / 61.5])
    assert levels[4] == 0 and min(levels[:4]) == 1
    weights = weights_of(levels)
    assert weights[4] == 0
    ratios = np.array(weights[:4]) / weights[0] / (odds / odds[0])
    assert np.all(np.abs(np.log2(ratios)) <= 0.26)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=50))
def test_entries_have_a_level_exactly_if_they_occur(column):
    levels = entry_levels(np.array(column)[:, None], 8)
    assert len(levels) == 8
    assert {k for k, level in enumerate(levels) if level} == set(column)
    for level, weight in zip(levels, weights_of(levels), strict=True):
        assert weight == (math.floor(2 ** ((level + 15) / 2)) if level else 0)


def test_levels_of_a_constant_entry_in_many_images_fit_into_a_byte():
    codes = np.stack([np.zeros(100_000, int), np.full(100_000, 1)], 1)
    codes[0, 1] = 2
    assert max(entry_levels(codes, 3)) < 128


def test_every_level_has_a_weight():
    weights = weights_of(bytes(range(256)))
    assert weights[0] == 0 and weights[1:] == sorted(weights[1:]) and weights[1] == 256
