"""Colours and lines for codebook entries."""

import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest

from pivq_jax.explore.factors import CLUSTERS, find_meanings
from pivq_jax.sampling import CodeSpace

FACTORS = {"rear_hair": ("none", "long"), "shade": ("dark", "mid", "light")}


@pytest.fixture(scope="module")
def labelled() -> tuple[np.ndarray, np.ndarray]:
    """Entries 0 and 1 tell the first factor, 2 to 4 the second, 5 to 9 nothing."""
    rng = np.random.default_rng(0)
    labels = np.stack([rng.integers(0, 2, 400), rng.integers(0, 3, 400)], 1)
    chance = 5 + rng.permuted(np.tile(np.arange(5), (400, 1)), axis=1)[:, :2]
    return np.column_stack([labels[:, 0], 2 + labels[:, 1], chance]), labels


def column(found: dict, name: str) -> list:
    return [entry[name] for entry in found["entries"]]


def test_entries_get_the_factor_that_they_tell(labelled):
    codes, labels = labelled
    found = find_meanings(CodeSpace(4, 12), jnp.zeros((12, 3)), codes, labels, FACTORS, 0)
    assert found["grouping"] == "factor" and found["groups"] == ["rear hair", "shade"]
    assert column(found, "group") == [0, 0, 1, 1, 1] + 7 * [-1]
    assert column(found, "value")[:5] == ["none", "long", "dark", "mid", "light"]
    assert found["entries"][1]["text"].startswith("rear hair: long in 100% of images with it, ")
    assert {*column(found, "text")[5:], *column(found, "value")[5:]} == {""}
    shares = np.bincount(codes.ravel(), minlength=12) / 400
    np.testing.assert_allclose(column(found, "share"), shares)


def test_shares_count_an_image_once_and_take_little_memory():
    codes = np.zeros((5_000, 4), np.int32)
    codes[:3_000, 3] = 4_095
    codes[:1_000, 1] = 7
    codebook = jnp.arange(8_192.0).reshape(4_096, 2)
    tracemalloc.start()
    try:
        space = CodeSpace(4, 4_096, "nearest")
        found = find_meanings(space, codebook, codes, codes[:, :0], {}, 0)
        assert tracemalloc.get_traced_memory()[1] < 5_000 * 4_096  # bytes, even of one bool each
    finally:
        tracemalloc.stop()
    share = column(found, "share")
    assert (share[0], share[7], share[4_095]) == (1.0, 0.2, 0.6) and np.count_nonzero(share) == 3


def test_without_labels_entries_near_each_other_are_a_group():
    rng = np.random.default_rng(0)
    centres = 10 * rng.standard_normal((CLUSTERS, 4))
    owners = rng.permutation(np.arange(5 * CLUSTERS) % CLUSTERS)
    codebook = jnp.asarray(centres[owners] + 0.01 * rng.standard_normal((len(owners), 4)))
    codes, labels = np.arange(10).reshape(5, 2), np.zeros((5, 0), np.int32)
    found = find_meanings(CodeSpace(2, 5 * CLUSTERS), codebook, codes, labels, {}, 3)
    assert found["grouping"] == "cluster" and len(found["groups"]) == CLUSTERS
    assert len({*zip(owners.tolist(), column(found, "group"), strict=True)}) == CLUSTERS
    assert sum(column(found, "share")) == pytest.approx(2)
