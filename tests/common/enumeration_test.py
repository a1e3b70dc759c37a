"""Ranks of sets, multisets and sequences, against their enumeration by itertools."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pivq_jax.common import enumeration
from pivq_jax.common.enumeration import bytes_per_image, rank, unrank
from pivq_jax.common.errors import InputError
from pivq_jax.evaluation.capacity import ceiling_bits
from pivq_jax.model.quantizer import KINDS

ALL = {
    "matching": itertools.combinations,
    "nearest": itertools.combinations_with_replacement,
    "positional": lambda entries, n: itertools.product(entries, repeat=n),
}


def numbers(ranks: np.ndarray) -> list[int]:
    return [int.from_bytes(row.tobytes(), "big") for row in ranks]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_codes, codebook_size", [(1, 1), (1, 7), (2, 5), (3, 6), (4, 4)])
def test_order_is_that_of_itertools(kind, num_codes, codebook_size):
    every = np.array(list(ALL[kind](range(codebook_size), num_codes)))
    ranks = rank(every, codebook_size, kind)
    assert numbers(ranks) == list(range(len(every)))
    found = unrank(ranks, num_codes, codebook_size, kind)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, every)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), kind=st.sampled_from(KINDS), num_codes=st.integers(1, 24))
def test_round_trip(data, kind, num_codes):
    least = num_codes + 1 if kind == "matching" else 1
    size = data.draw(st.integers(least, 700))
    code = st.integers(0, size - 1)
    row = st.lists(code, min_size=num_codes, max_size=num_codes, unique=kind == "matching")
    codes = np.array(data.draw(st.lists(row, min_size=1, max_size=4)))
    ranks = rank(codes, size, kind)
    expected = codes if kind == "positional" else np.sort(codes, axis=1)
    np.testing.assert_array_equal(unrank(ranks, num_codes, size, kind), expected)
    # Bytes have the order of the codes.
    order = sorted(range(len(codes)), key=lambda i: expected[i].tolist())
    in_order = [ranks[i].tobytes() for i in order]
    assert in_order == sorted(in_order)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_codes, size", [(16, 512), (128, 2048), (256, 4096)])
def test_sizes_are_the_ceilings(kind, num_codes, size):
    assert bytes_per_image(num_codes, size, kind) == math.ceil(
        math.ceil(ceiling_bits(kind, num_codes, size)) / 8
    )


def test_the_default_takes_13_bytes_and_a_sequence_18():
    assert bytes_per_image(16, 512) == 13
    assert bytes_per_image(16, 512, "positional") == 18
    first, last = np.arange(16)[None], 511 - np.arange(16)[None]
    assert numbers(rank(first, 512)) == [0]
    assert numbers(rank(last, 512)) == [math.comb(512, 16) - 1]


@pytest.mark.parametrize("kind", KINDS)
def test_large_sets(kind):
    rng = np.random.default_rng(0)
    codes = np.sort([rng.permutation(4096)[:256] for _ in range(3)], axis=1)
    ranks = rank(codes, 4096, kind)
    assert ranks.shape == (3, bytes_per_image(256, 4096, kind))
    np.testing.assert_array_equal(unrank(ranks, 256, 4096, kind), codes)


def test_more_images_than_are_ranked_at_once():
    codes = np.arange(9_000)[:, None] % 300
    np.testing.assert_array_equal(unrank(rank(codes, 300), 1, 300), codes)


def test_no_images():
    assert rank(np.empty((0, 16), np.int32), 512).shape == (0, 13)
    assert unrank(np.empty((0, 13), np.uint8), 16, 512).shape == (0, 16)


def test_any_order_of_a_set_has_the_same_rank():
    a, b = rank([[5, 1, 3]], 10), rank([[1, 3, 5]], 10)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "codes, size, kind, error, words",
    [
        ([[1, 1]], 5, "matching", ValueError, "image 0 repeats a code"),
        ([[1, 5]], 5, "matching", ValueError, "range from 1 to 5"),
        ([[-1, 2]], 5, "nearest", ValueError, "range from -1 to 2"),
        ([[0.0, 1.0]], 5, "matching", TypeError, "float64"),
        ([0, 1], 5, "matching", ValueError, r"\[M, N\]"),
        ([[0, 1, 2]], 2, "matching", ValueError, "3 distinct codes"),
        ([[0, 1]], 5, "sets", ValueError, "unknown"),
        ([[]], 5, "matching", TypeError, "float64"),
    ],
)
def test_codes_that_are_none_are_refused(codes, size, kind, error, words):
    with pytest.raises(error, match=words):
        rank(codes, size, kind)


@pytest.mark.parametrize("kind, count", [("matching", 120), ("nearest", 220), ("positional", 1000)])
def test_ranks_beyond_the_last_are_refused(kind, count):
    size = bytes_per_image(3, 10, kind)
    ranks = np.frombuffer((count - 1).to_bytes(size) + count.to_bytes(size), np.uint8)
    ranks = ranks.reshape(2, size)
    assert unrank(ranks[:1], 3, 10, kind).shape == (1, 3)
    with pytest.raises(InputError, match="image 1 has a rank beyond the last"):
        unrank(ranks, 3, 10, kind)


@pytest.mark.parametrize("ranks", [np.zeros((1, 2), np.uint8), np.zeros((1, 1), int), np.zeros(1)])
def test_ranks_of_another_form_are_refused(ranks):
    with pytest.raises(ValueError, match=r"uint8 \[M, 1\]"):
        unrank(ranks, 3, 10)


@pytest.mark.parametrize("kind", ["matching", "nearest"])
@pytest.mark.parametrize("num_codes, size", [(1, 2), (3, 6), (4, 4), (20, 300), (299, 300)])
def test_without_columns_the_numbers_are_the_same(kind, num_codes, size, monkeypatch):
    rng = np.random.default_rng(0)
    codes = np.array([rng.choice(size, num_codes, kind == "nearest") for _ in range(20)])
    first, last = np.arange(num_codes), np.arange(size - num_codes, size)
    codes = np.sort(np.concatenate([codes, [first, last]]), axis=1)
    expected = rank(codes, size, kind)
    monkeypatch.setattr(enumeration, "_MAX_COLUMN", 0)
    np.testing.assert_array_equal(rank(codes, size, kind), expected)
    np.testing.assert_array_equal(unrank(expected, num_codes, size, kind), codes)
