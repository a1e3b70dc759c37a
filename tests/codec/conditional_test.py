"""The arithmetic code of sets, against the enumeration of all sets in exact fractions."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pivq_jax.codec.conditional import (
    decode_sets,
    encode_set,
    encode_sets,
    entry_levels,
    inclusion_table,
    weights_of,
)
from pivq_jax.common.errors import InputError

UNIT = 2**24


def probabilities(weights: list[int], num_codes: int) -> dict[tuple[int, ...], Fraction]:
    """The probability of each set that has one, by definition."""
    sets = itertools.combinations(range(len(weights)), num_codes)
    products = {each: math.prod(weights[k] for k in each) for each in sets}
    total = sum(products.values())
    return {each: Fraction(product, total) for each, product in products.items() if product}


@st.composite
def problems(draw) -> tuple[list[int], int]:
    """Weights, and a number of codes that they allow."""
    weights = draw(st.lists(st.integers(0, 1000), min_size=1, max_size=9).filter(any))
    return weights, draw(st.integers(1, sum(weight > 0 for weight in weights)))


@given(problems())
def test_the_table_holds_the_conditional_probabilities(problem):
    weights, num_codes = problem
    table = inclusion_table(weights, num_codes)
    for entry, row in enumerate(table):
        for left in range(1, num_codes + 1):
            sets = {
                each: math.prod(weights[k] for k in each)
                for each in itertools.combinations(range(entry, len(weights)), left)
            }
            total = sum(sets.values())
            if not total:  # cannot happen
                continue
            exact = Fraction(sum(p for each, p in sets.items() if entry in each), total)
            assert abs(row[left] - exact * UNIT) <= 2
            assert (row[left] == 0) == (exact == 0) and (row[left] == UNIT) == (exact == 1)


@given(problems())
def test_code_words_are_within_two_bits_of_the_ideal_and_begin_no_other(problem):
    weights, num_codes = problem
    table = inclusion_table(weights, num_codes)
    exact = probabilities(weights, num_codes)
    words = {}
    for each, probability in exact.items():
        word, length = encode_set(each, table)
        ideal = -math.log2(probability)
        assert ideal - 1e-3 < length < ideal + 2 + 1e-3
        words[each] = format(word, f"0{length}b") if length else ""
    if len(words) > 1:
        ordered = sorted(words.values())
        assert not any(b.startswith(a) for a, b in itertools.pairwise(ordered))
        assert ordered == list(words.values())  # the order of the sets


@given(problems(), st.randoms(use_true_random=False))
def test_round_trip(problem, random):
    weights, num_codes = problem
    table = inclusion_table(weights, num_codes)
    sets = random.choices(list(probabilities(weights, num_codes)), k=7)
    content = encode_sets(np.array(sets), table)
    assert list(decode_sets(content, 7, num_codes, table)) == [list(each) for each in sets]


def drawn(num_codes: int, size: int, count: int) -> tuple[np.ndarray, list[int]]:
    """Sets of entries of very different frequencies, and the weights of their entries."""
    rng = np.random.default_rng(0)
    octaves = rng.normal(0, 3, size)
    keys = octaves * math.log(2) + rng.gumbel(size=(count, size))
    codes = np.sort(np.argsort(-keys, axis=1)[:, :num_codes], axis=1)
    return codes, [int(2 ** (octave + 16)) for octave in octaves]


@pytest.mark.parametrize("num_codes, size, count", [(16, 512, 100), (64, 1024, 10)])
def test_large_sets_take_as_many_bits_as_the_model_says(num_codes, size, count):
    codes, weights = drawn(num_codes, size, count)
    table = inclusion_table(weights, num_codes)
    content = encode_sets(codes, table)
    assert list(decode_sets(content, count, num_codes, table)) == codes.tolist()
    # log2 of e_N by the plain recursion, which integers of any size allow.
    sums = [1] + [0] * num_codes
    for weight in weights:
        for j in range(num_codes, 0, -1):
            sums[j] += weight * sums[j - 1]
    ideal = [
        math.log2(sums[num_codes]) - sum(math.log2(weights[k]) for k in row)
        for row in codes.tolist()
    ]
    lengths = [encode_set(row, table)[1] for row in codes.tolist()]
    excess = np.array(lengths) - ideal
    assert excess.min() > -0.01 and excess.max() < 2.01
    assert len(content) == math.ceil(sum(lengths) / 8)


def test_equal_weights_make_all_sets_equally_long():
    table = inclusion_table([7] * 12, 4)
    lengths = [encode_set(each, table)[1] for each in itertools.combinations(range(12), 4)]
    assert set(lengths) <= {math.ceil(math.log2(495)), math.ceil(math.log2(495)) + 1}


def test_sets_that_are_certain_take_nothing():
    table = inclusion_table([0, 3, 0, 5], 2)
    assert encode_set([1, 3], table) == (0, 0)
    assert list(decode_sets(b"", 3, 2, table)) == [[1, 3]] * 3


def test_a_code_without_weight_is_refused():
    with pytest.raises(ValueError, match="code 0 has weight 0"):
        encode_set([0, 1], inclusion_table([0, 1, 1], 2))


def test_too_few_weights_are_refused():
    with pytest.raises(InputError, match="1 entries have a weight"):
        inclusion_table([0, 5, 0], 2)


def test_every_other_content_is_refused_or_other_sets():
    codes, weights = drawn(4, 20, 5)
    table = inclusion_table(weights, 4)
    content = encode_sets(codes, table)

    def decode(changed: bytes, count: int = 5) -> list[list[int]]:
        return list(decode_sets(changed, count, 4, table))

    for length in range(len(content)):
        with pytest.raises(InputError, match="damaged"):
            decode(content[:length])
    for changed, count in ((content + b"\0", 5), (content, 4), (content, 6), (b"", 1)):
        with pytest.raises(InputError, match="damaged"):
            decode(changed, count)
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 128 >> bit % 8
        try:
            others = decode(bytes(changed))
        except InputError:
            continue
        assert others != codes.tolist()
        assert encode_sets(np.array(others), table) == changed


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
