"""The space of codes: ranks against an enumeration by itertools, counts, and what is refused."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pivq_jax.codes import enumeration
from pivq_jax.codes.space import CodeSpace
from pivq_jax.common.errors import InputError
from pivq_jax.config.sections import KINDS

ALL = {
    "matching": itertools.combinations,
    "nearest": itertools.combinations_with_replacement,
    "positional": lambda entries, n: itertools.product(entries, repeat=n),
}


def numbers(ranks: np.ndarray) -> list[int]:
    return [int.from_bytes(row.tobytes(), "big") for row in ranks]


@st.composite
def codes_of_a_space(draw: st.DrawFn) -> tuple[CodeSpace, np.ndarray]:
    """A space of up to 24 codes of up to 700 entries, and the codes of one to four images."""
    kind, num_codes = draw(st.sampled_from(KINDS)), draw(st.integers(1, 24))
    size = draw(st.integers(num_codes if kind == "matching" else 1, 700))
    code = st.integers(0, size - 1)
    row = st.lists(code, min_size=num_codes, max_size=num_codes, unique=kind == "matching")
    codes = np.array(draw(st.lists(row, min_size=1, max_size=4)))
    return CodeSpace(num_codes, size, kind), codes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_codes, codebook_size", [(1, 7), (3, 6), (4, 4)])
def test_order_is_that_of_itertools(kind, num_codes, codebook_size):
    space = CodeSpace(num_codes, codebook_size, kind)
    every = np.array(list(ALL[kind](range(codebook_size), num_codes)))
    ranks = space.rank(every)
    assert numbers(ranks) == list(range(len(every))) and space.num_messages == len(every)
    found = space.unrank(ranks)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, every)


@settings(max_examples=60)
@given(codes_of_a_space())
def test_ranks_are_read_back_and_have_the_order_of_the_codes(case):
    space, codes = case
    ranks = space.rank(codes)
    expected = np.asarray(space.canonical(codes))
    np.testing.assert_array_equal(expected, codes if space.ordered else np.sort(codes, axis=1))
    np.testing.assert_array_equal(space.unrank(ranks), expected)
    # Bytes have the order of the codes.
    order = sorted(range(len(codes)), key=lambda i: expected[i].tolist())
    in_order = [ranks[i].tobytes() for i in order]
    assert in_order == sorted(in_order)


@settings(max_examples=40)
@given(codes_of_a_space())
def test_counts_of_entries_are_those_of_numpy(case):
    space, codes = case
    counts = space.multi_hot(codes)
    expected = [np.bincount(row, minlength=space.codebook_size) for row in codes]
    np.testing.assert_array_equal(counts, expected)
    assert not space.distinct or counts.max() == 1
    images, held = space.occurrences(codes)
    np.testing.assert_array_equal(np.argwhere(counts), np.stack([images, held], 1))


@settings(max_examples=40)
@given(codes_of_a_space(), st.data())
def test_codes_are_those_of_a_space_or_refused(case, data):
    space, codes = case
    assert space.check(codes) is codes and len(space.check(codes[:0])) == 0
    row, place = data.draw(st.integers(0, len(codes) - 1)), space.num_codes - 1
    for code in (-1, space.codebook_size):
        wrong = codes.copy()
        wrong[row, place] = code
        with pytest.raises(ValueError, match=r"give \[0, "):
            space.check(wrong)
    with pytest.raises(ValueError, match="give integers"):
        space.check(codes.astype(np.float32))
    for wrong in (codes[0], codes[None], np.concatenate([codes, codes], 1), codes[:, 1:]):
        with pytest.raises(ValueError, match=rf"\[M, {space.num_codes}\]"):
            space.check(wrong)
    assert space.check(codes[:, 1:], partial=True).shape[1] == place
    if place:
        repeated = codes.copy()
        repeated[row, place] = repeated[row, 0]
        assert space.check(repeated, distinct=False) is repeated
        if space.distinct:
            with pytest.raises(ValueError, match=f"image {row} repeats a code"):
                space.check(repeated)
        else:
            assert space.check(repeated) is repeated


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_codes, size", [(1, 1), (4, 4), (16, 512), (256, 4096)])
def test_ranks_take_as_many_bytes_as_the_ceiling_has(kind, num_codes, size):
    space = CodeSpace(num_codes, size, kind)
    bits = math.log2(space.num_messages)
    assert space.ceiling_bits == (pytest.approx(bits) if bits else 0)
    codes = [np.arange(num_codes), np.arange(size - num_codes, size)]
    ranks = space.rank(codes)
    assert ranks.shape == (2, math.ceil(math.ceil(space.ceiling_bits) / 8))
    np.testing.assert_array_equal(space.unrank(ranks), codes)


def test_the_default_takes_13_bytes_a_sequence_18_and_150_codes_of_256_own_entries_150():
    space = CodeSpace(16, 512)
    assert space.bytes_per_image == 13
    assert CodeSpace(16, 512, "positional").bytes_per_image == 18
    assert numbers(space.rank(511 - np.arange(16)[None])) == [math.comb(512, 16) - 1]
    space = CodeSpace(150, 150 * 256, own_entries=True)
    assert (space.ceiling_bits, space.bytes_per_image) == (1200, 150)


@pytest.mark.parametrize("each", [1, 4])
def test_codes_of_latents_with_entries_of_their_own_are_sequences(each):
    space, first = CodeSpace(3, 3 * each, own_entries=True), each * np.arange(3)
    every = np.array(list(itertools.product(range(each), repeat=3))) + first
    assert space.num_messages == len(every)
    assert space.ceiling_bits == pytest.approx(3 * math.log2(each))
    ranks = space.rank(np.random.default_rng(0).permuted(every, axis=1))
    assert numbers(ranks) == list(range(len(every)))
    np.testing.assert_array_equal(space.unrank(ranks), every)
    assert space.check(every[:, 1:], partial=True).shape[1] == 2
    assert [*space.alternatives(2 * each)] == [*range(2 * each, 3 * each)]
    assert [*CodeSpace(3, 9).alternatives(4)] == [*range(9)]
    if each > 1:
        with pytest.raises(InputError, match="beyond the last"):
            space.unrank(np.full_like(ranks[:1], 255))
        for partial in (False, True):
            with pytest.raises(ValueError, match="image 1 has two codes of one latent"):
                space.check([every[0], [0, 1, each]], partial=partial)
        assert space.check([[0, 1, each]], distinct=False).shape == (1, 3)


@pytest.mark.parametrize("count", [0, 9_000])  # none, or more than are ranked at once
def test_any_number_of_images_is_ranked(count):
    codes, space = np.arange(count)[:, None] % 300, CodeSpace(1, 300)
    np.testing.assert_array_equal(space.unrank(space.rank(codes)), codes)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((3, 2, "matching"), "3 distinct codes cannot come from 2"),
        ((2, 5, "sets"), "'sets' is unknown: use one of matching, nearest, positional"),
        ((0, 5, "nearest"), "num_codes = 0"),
        ((150, 32_000, "matching", "auto", True), "150 latents cannot share 32000 entries"),
    ],
)
def test_spaces_that_are_none_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        CodeSpace(*arguments)


@pytest.mark.parametrize("kind, count", [("matching", 120), ("nearest", 220), ("positional", 1000)])
def test_ranks_beyond_the_last_or_of_another_form_are_refused(kind, count):
    space = CodeSpace(3, 10, kind)
    size = space.bytes_per_image
    ranks = np.frombuffer((count - 1).to_bytes(size) + count.to_bytes(size), np.uint8)
    ranks = ranks.reshape(2, size)
    assert space.unrank(ranks[:1]).shape == (1, 3)
    with pytest.raises(InputError, match="image 1 has a rank beyond the last"):
        space.unrank(ranks)
    for other in (np.zeros((1, size + 1), np.uint8), np.zeros((1, size), int), ranks[0]):
        with pytest.raises(ValueError, match=rf"uint8 \[M, {size}\]"):
            space.unrank(other)


def test_the_space_of_a_config(tiny_config):
    config = tiny_config.with_fields({"quantizer.kind": "nearest", "quantizer.method": "greedy"})
    expected = CodeSpace(8, 32, "nearest", "greedy")
    for each in (config, config.to_dict()):
        assert CodeSpace.of(each) == expected and hash(CodeSpace.of(each)) == hash(expected)


@pytest.mark.parametrize("kind", ["matching", "nearest"])
@pytest.mark.parametrize("num_codes, size", [(1, 2), (20, 300), (299, 300)])
def test_without_columns_of_binomials_the_ranks_are_the_same(kind, num_codes, size, monkeypatch):
    rng, space = np.random.default_rng(0), CodeSpace(num_codes, size, kind)
    codes = np.array([rng.choice(size, num_codes, kind == "nearest") for _ in range(20)])
    first, last = np.arange(num_codes), np.arange(size - num_codes, size)
    codes = np.sort(np.concatenate([codes, [first, last]]), axis=1)
    expected = space.rank(codes)
    np.testing.assert_array_equal(space.unrank(expected), codes)
    monkeypatch.setattr(enumeration, "_MAX_COLUMN", 0)
    np.testing.assert_array_equal(space.rank(codes), expected)
    np.testing.assert_array_equal(space.unrank(expected), codes)
