"""Capacity against values worked out by hand, SciPy and a plain count matrix."""

import math

import hypothesis
import numpy as np
import pytest
import scipy.stats
from hypothesis import strategies as st

from pivq_jax.config.sections import KINDS
from pivq_jax.sampling import CodeSpace, capacity


def measure(codes, codebook_size, kind):
    return capacity(CodeSpace(np.shape(codes)[-1], codebook_size, kind), codes)


def test_sets_by_hand():
    # Code 0 is always there, codes 1 and 2 half of the time each, code 3 never.
    measures = measure([[0, 1], [2, 0], [1, 0], [0, 2]], 4, "matching")
    assert measures == {
        "ceiling_bits": pytest.approx(math.log2(6)),
        "marginal_bits": pytest.approx(2.0),
        "distinct_codes_per_image": 2.0,
        "codes_used": 3,
        "constant_codes": 1,
        "perplexity": pytest.approx(2**1.5),
        "images": 4,
    }


def test_latents_with_entries_of_their_own_have_the_entropies_of_their_codes():
    codes = np.array([[0, 4], [5, 1], [2, 4], [3, 6]])  # latents have the entries 0 to 3, 4 to 7
    measures = capacity(CodeSpace(2, 8, own_entries=True), codes)
    assert measures["ceiling_bits"] == 4.0
    assert measures["marginal_bits"] == pytest.approx(2.0 + 1.5)
    assert measures["codes_used"] == 7


@pytest.mark.parametrize(("images", "used"), [(1000, 2), (1001, 1)])
def test_an_entry_is_used_from_one_image_in_a_thousand_on(images, used):
    codes = np.zeros((images, 1), np.int64)
    codes[0] = 3
    assert measure(codes, 4, "nearest")["codes_used"] == used


@hypothesis.given(
    st.integers(0, 2**31), st.integers(1, 30), st.integers(1, 6), st.sampled_from(KINDS)
)
@hypothesis.settings(max_examples=80)
def test_agrees_with_scipy_on_the_whole_count_matrix(seed, images, n, kind):
    k = 7
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, k, (images, n)).astype(np.int32)
    if kind == "matching":
        codes = rng.permuted(np.tile(np.arange(k, dtype=np.int32), (images, 1)), axis=1)[:, :n]
    counts = (codes[:, :, None] == np.arange(k)).sum(1)  # [images, k]
    columns = codes.T if kind == "positional" else counts.T
    marginal = sum(
        scipy.stats.entropy(np.unique(column, return_counts=True)[1], base=2) for column in columns
    )
    measures = measure(codes, k, kind)
    assert measures["marginal_bits"] == pytest.approx(
        min(marginal, measures["ceiling_bits"]), abs=1e-9
    )
    assert measures["distinct_codes_per_image"] == pytest.approx((counts > 0).sum(1).mean())
    assert measures["codes_used"] == (counts > 0).any(0).sum()
    assert measures["constant_codes"] == ((counts > 0).mean(0) > 0.89999).sum()
    usage = scipy.stats.entropy(counts.sum(0), base=2)
    assert measures["perplexity"] == pytest.approx(2**usage)
    if kind != "positional":
        shuffled = measure(rng.permuted(codes, axis=1), k, kind)
        assert shuffled == pytest.approx(measures)


def test_the_capacity_of_no_images_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        measure(np.zeros((0, 3), int), 4, "nearest")
