"""The codes that tell most are listed, with what they tell."""

import numpy as np
import pytest
import sklearn.metrics

from pivq_jax.sampling import CodeSpace, informative_codes
from pivq_jax.sampling.meaning import _mutual_information

K, N, M = 24, 5, 400
SPACE = CodeSpace(N, K)

FACTORS = {"colour": ("#ff0000", "#00ff00", "#0000ff"), "hat": ("no", "yes"), "noise": ("p", "q")}


def labelled_codes():
    """Codes 0, 1, 2 tell the colour and 3 or 4 the hat; code 5 is in all images, 6 to 23 vary."""
    rng = np.random.default_rng(0)
    labels = np.stack([rng.integers(0, len(v), M) for v in FACTORS.values()], axis=1)
    hat = 3 + (labels[:, 1] ^ (rng.random(M) < 0.1))
    others = np.stack([rng.permutation(np.arange(6, K))[:2] for _ in range(M)])
    codes = np.stack([labels[:, 0], hat, np.full(M, 5), *others.T], axis=1)
    return np.sort(codes, axis=1).astype(np.int32), labels


def test_mutual_information_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 300)
    present = rng.random((300, 5)) < np.array([0.1, 0.5, 0.9, 0, 1])
    present[:, 1] |= labels == 2
    expected = [
        sklearn.metrics.mutual_info_score(column, labels) / np.log(2) for column in present.T
    ]
    counts = np.stack([np.bincount(labels[column], minlength=4) for column in present.T])
    found = _mutual_information(counts, labels)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found[1] > 0.1 and found[3] == found[4] == 0


def test_the_codes_that_tell_most_are_listed_factor_by_factor():
    codes, labels = labelled_codes()
    found = informative_codes(SPACE, codes, labels, FACTORS, count=10)
    assert [m.factor for m in found[:2]] == ["colour", "hat"]  # the best of each factor first
    assert {m.code for m in found} == {0, 1, 2, 3, 4}  # nothing by chance, nothing that all have
    for meaning in found:
        has = (codes == meaning.code).any(1)
        assert meaning.share == pytest.approx(has.mean())
        column = list(FACTORS).index(meaning.factor)
        value = FACTORS[meaning.factor].index(meaning.value)
        assert meaning.value_share == pytest.approx(np.mean(labels[has, column] == value))
        assert meaning.value_share_of_all == pytest.approx(np.mean(labels[:, column] == value))
        assert meaning.value_share > 0.8
    assert [m.code for m in informative_codes(SPACE, codes, labels, FACTORS, 2)] == [
        m.code for m in found[:2]
    ]


def test_images_of_unknown_value_do_not_count_for_the_factor():
    codes, labels = labelled_codes()
    known = np.random.default_rng(4).random(M) < 0.5
    values = labels.copy()
    values[:, 0] = np.where(known, labels[:, 0], 3)
    factors = {**FACTORS, "colour": (*FACTORS["colour"], "unknown")}
    found = informative_codes(SPACE, codes, values, factors, count=10)
    expected = informative_codes(SPACE, codes[known], labels[known], FACTORS, count=10)
    pairs = {m.code: m for m in expected if m.factor == "colour"}
    assert set(pairs) == {0, 1, 2} == {m.code for m in found if m.factor == "colour"}
    for meaning in found:
        if meaning.factor == "colour":
            same = pairs[meaning.code]
            assert (meaning.value, meaning.bits) == (same.value, pytest.approx(same.bits))
            assert meaning.value_share == pytest.approx(same.value_share)
            assert meaning.value_share_of_all == pytest.approx(same.value_share_of_all)
    whole = informative_codes(SPACE, codes, labels, FACTORS, count=10)
    assert [m for m in found if m.factor == "hat"] == [m for m in whole if m.factor == "hat"]


def test_a_factor_of_many_values_does_not_take_the_codes_of_others():
    rng = np.random.default_rng(0)
    labels = np.stack([rng.integers(0, 2, 4_000), rng.integers(0, 200, 4_000)], axis=1)
    seldom = rng.random(4_000) < np.where(labels[:, 0] == 1, 0.04, 0.01)
    codes = np.where(seldom, 0, rng.integers(1, K, 4_000))[:, None]
    factors = {"hat": ("no", "yes"), "age": tuple(map(str, range(200)))}
    meaning, *others = informative_codes(CodeSpace(1, K), codes, labels, factors, K)
    assert (meaning.code, meaning.factor, meaning.value) == (0, "hat", "yes") and not others


def test_without_labels_codes_of_most_entropy_come_first():
    codes, _ = labelled_codes()
    found = informative_codes(SPACE, codes, np.empty((M, 0), int), {}, count=3)
    assert {m.code for m in found[:2]} == {3, 4} and found[0].factor == ""
    assert found[0].bits > 0.99 and found[0].bits >= found[1].bits >= found[2].bits
