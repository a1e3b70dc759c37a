"""Sets on a stack, as a prior expects them."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pivq_jax.codec.bits_back import decode_sets, encode_sets, group_sizes
from pivq_jax.codec.exact_prior import ExactPrior
from pivq_jax.common.errors import InputError
from pivq_jax.sampling.prior import SetPrior
from tests.codec.priors import random_prior, uniform_prior

# K, and priors for sets of N, from one entry that is left over to all but one.
SIZES = [(2, 1), (5, 1), (6, 5), (12, 4), (30, 8)]
PRIORS = {
    size: ExactPrior(random_prior(SetPrior(size[0], width=8, depth=1, heads=2)), size[1])
    for size in SIZES
}


def draw(size: int, num_codes: int, count: int, seed: int = 0) -> np.ndarray:
    """Any sets, their codes in any order."""
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(size)[:num_codes] for _ in range(count)])


@settings(max_examples=50)
@given(st.sampled_from(SIZES), st.integers(1, 150), st.integers(0, 2**32))
def test_sets_are_read_as_they_were_written_and_counted(size, count, seed):
    codes, prior, done = draw(*size, count, seed), PRIORS[size], []
    content = encode_sets(codes, prior, done.append)
    assert done == group_sizes(count)
    assert list(decode_sets(content, count, prior)) == np.sort(codes, axis=1).tolist()


def test_groups_grow_with_what_is_written():
    for count in range(300):
        sizes = group_sizes(count)
        assert sum(sizes) == count and max(sizes, default=0) <= 64
        before = itertools.accumulate(sizes, initial=0)
        assert all(size <= max(1, written) for size, written in zip(sizes, before, strict=False))
    assert group_sizes(1000) == [1, 1, 2, 4, 8, 16, 32, *[64] * 14, 40]


def test_equally_likely_sets_take_no_more_bits_than_their_number():
    """What an order tells is not in the file: log2 C(K, N) bits a set are enough."""
    prior = ExactPrior(uniform_prior(SetPrior(300, width=4, depth=1, heads=1)), 16)
    bits, sizes = math.log2(math.comb(300, 16)), {}
    for count in (1, 10, 100):
        sizes[count] = 8 * len(encode_sets(draw(300, 16, count), prior))
        assert sizes[count] < count * bits * 1.0001 + 32
    assert sizes[100] > 99 * bits


def test_every_other_content_is_refused_or_other_sets():
    codes, prior = np.sort(draw(12, 4, 5)), PRIORS[12, 4]
    content = encode_sets(codes, prior)
    cases = [content[:length] for length in range(len(content))] + [content + b"\0", b"\0"]
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 128 >> bit % 8
        cases.append(bytes(changed))
    refused = 0
    for case in cases:
        try:
            others = list(decode_sets(case, 5, prior))
        except InputError as error:
            assert "damaged" in str(error)
            refused += 1
            continue
        # No two contents hold the same sets.
        assert others != codes.tolist() and encode_sets(others, prior) == case
    assert refused > len(cases) // 2
    for count in (4, 6):
        with pytest.raises(InputError, match="damaged"):
            list(decode_sets(content, count, prior))
