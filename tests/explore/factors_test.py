"""What entries tell; readings of images and where edited codes go, against SciPy.

Edits themselves are in tests/sampling.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.stats import multivariate_normal

from pivq_jax.explore.factors import (
    CLUSTERS,
    LEAST_RATIO,
    NOISE,
    Probe,
    find_meanings,
    fit_probe,
    read_values,
    slices_of,
)
from pivq_jax.sampling import CodeSpace

N, K = 8, 32  # of the tiny model
FACTORS = {"colour": ("red", "green", "blue", "never"), "shape": ("round", "square")}


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 [M, 4, 4, 3], of a colour and of a faint shape in noise; their labels."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(0, 3, count), rng.integers(0, 2, count)], 1)
    images = 100 + rng.normal(0, 10, (count, 4, 4, 3))
    images[:, :2] += 60 * np.eye(3)[labels[:, 0]][:, None, None]
    images[:, 3, 3] += 20 * labels[:, 1][:, None]
    return images.round().astype(np.uint8), labels


@pytest.fixture(scope="module")
def probe() -> Probe:
    return fit_probe(*drawn(2_000), FACTORS)


def test_scores_are_log_densities_of_normal_distributions(probe):
    images, labels = drawn(2_000)
    pixels = images.reshape(len(images), -1).astype(np.float64)
    scores = pixels[:50] @ probe.weights.T.astype(np.float64) + probe.bias
    for factor, of in enumerate(slices_of(FACTORS)):
        values = np.unique(labels[:, factor])
        means = [pixels[labels[:, factor] == value].mean(0) for value in values]
        rest = pixels - np.array(means)[labels[:, factor]]
        within = rest.T @ rest / len(rest) + NOISE**2 * np.eye(pixels.shape[1])
        logs = np.stack([multivariate_normal(mean, within).logpdf(pixels[:50]) for mean in means])
        expected, found = logs.T - logs[:1].T, scores[:, of][:, values]
        np.testing.assert_allclose(found - found[:, :1], expected, atol=0.05)


def test_values_are_read_where_they_are_sure(probe):
    images, labels = drawn(2_000, seed=1)
    found = np.array([read_values(image, probe, FACTORS) for image in images])
    np.testing.assert_array_equal(found[:, 0], labels[:, 0])
    sure = found[:, 1] >= 0
    right = (found[sure, 1] == labels[sure, 1]).mean()
    assert 0.5 < sure.mean() < 1 and right > LEAST_RATIO / (LEAST_RATIO + 1)


def test_a_colour_between_two_is_none(probe):
    red, green = (np.full((4, 4, 3), 100.0) for _ in range(2))
    red[:2, :, 0] += 60
    green[:2, :, 1] += 60
    mixed = [(1 - share) * red + share * green for share in (0.0, 0.3, 0.4, 0.6, 0.7, 1.0)]
    found = [int(read_values(image.round(), probe, FACTORS)[0]) for image in mixed]
    assert found == [0, 0, -1, -1, 1, 1]


def test_edited_codes_are_in_the_places_of_those_they_replace(engine):
    rng, replaced = np.random.default_rng(0), 0
    codebook = np.asarray(engine.model.codebook, np.float64)
    for _ in range(30):
        codes = rng.permutation(K)[:N].astype(np.int32)
        edited = engine.edit(codes, 0, 1 - int(engine.labelled.read_factors(codes[None])[0, 0]))
        stays = edited == codes
        np.testing.assert_array_equal(stays, np.isin(codes, edited))
        cost = np.square(codebook[codes[~stays]][:, None] - codebook[edited[~stays]]).sum(-1)
        least = cost[linear_sum_assignment(cost)].sum()
        np.testing.assert_allclose(np.trace(cost), least, rtol=1e-5, atol=1e-9)
        replaced += 0 < (~stays).sum() < N
    assert replaced  # some, not all


def column(found: dict, name: str) -> list:
    return [entry[name] for entry in found["entries"]]


def test_entries_get_the_factor_that_they_tell():
    """Entries 0 and 1 tell the first factor, 2 to 4 the second, 5 to 9 nothing."""
    told = {"rear_hair": ("none", "long"), "shade": ("dark", "mid", "light")}
    rng = np.random.default_rng(0)
    labels = np.stack([rng.integers(0, 2, 400), rng.integers(0, 3, 400)], 1)
    chance = 5 + rng.permuted(np.tile(np.arange(5), (400, 1)), axis=1)[:, :2]
    codes = np.column_stack([labels[:, 0], 2 + labels[:, 1], chance])
    found = find_meanings(CodeSpace(4, 12), jnp.zeros((12, 3)), codes, labels, told)
    assert found["grouping"] == "factor" and found["groups"] == ["rear hair", "shade"]
    assert column(found, "group") == [0, 0, 1, 1, 1] + 7 * [-1]
    assert column(found, "value")[:5] == ["none", "long", "dark", "mid", "light"]
    assert found["entries"][1]["right"] == 1 and 0.4 < found["entries"][1]["usual"] < 0.6
    assert {*column(found, "value")[5:]} == {""} and {*column(found, "right")[5:]} == {0}
    shares = np.bincount(codes.ravel(), minlength=12) / 400
    np.testing.assert_allclose(column(found, "share"), shares)


def test_shares_count_an_image_once():
    codes = np.zeros((50, 4), np.int32)
    codes[:30, 3], codes[:10, 1] = 11, 7
    space, codebook = CodeSpace(4, 12, "nearest"), jnp.arange(24.0).reshape(12, 2)
    share = column(find_meanings(space, codebook, codes, codes[:, :0], {}), "share")
    assert (share[0], share[7], share[11]) == (1.0, 0.2, 0.6) and np.count_nonzero(share) == 3


def test_without_labels_entries_near_each_other_are_a_group():
    rng = np.random.default_rng(0)
    centres = 10 * rng.standard_normal((CLUSTERS, 4))
    owners = rng.permutation(np.arange(5 * CLUSTERS) % CLUSTERS)
    codebook = jnp.asarray(centres[owners] + 0.01 * rng.standard_normal((len(owners), 4)))
    codes, labels = np.arange(10).reshape(5, 2), np.zeros((5, 0), np.int32)
    found = find_meanings(CodeSpace(2, 5 * CLUSTERS), codebook, codes, labels, {})
    assert found["grouping"] == "cluster" and len(found["groups"]) == CLUSTERS
    assert len({*zip(owners.tolist(), column(found, "group"), strict=True)}) == CLUSTERS
    assert sum(column(found, "share")) == pytest.approx(2)
