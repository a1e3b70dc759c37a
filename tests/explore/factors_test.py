"""Readings of images and where edited codes go, against SciPy; edits are in tests/sampling."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.stats import multivariate_normal

from pivq_jax.common.errors import InputError
from pivq_jax.explore.factors import LEAST_RATIO, NOISE, Probe, fit_probe, read_values, slices_of

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
    shares = (0.0, 0.3, 0.4, 0.6, 0.7, 1.0)
    mixed = [((1 - share) * red + share * green).round().astype(np.uint8) for share in shares]
    found = [int(read_values(image, probe, FACTORS)[0]) for image in mixed]
    assert found == [0, 0, -1, -1, 1, 1]


def some_sets(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation(K)[:N] for _ in range(count)]).astype(np.int32)


def test_edited_codes_are_in_the_places_of_those_they_replace(engine):
    codebook, replaced = np.asarray(engine.model.codebook, np.float64), 0
    for codes in some_sets(30):
        edited = engine.edit(codes, 0, 1 - int(engine.labelled.read_factors(codes[None])[0, 0]))
        stays = edited == codes
        np.testing.assert_array_equal(stays, np.isin(codes, edited))
        cost = np.square(codebook[codes[~stays]][:, None] - codebook[edited[~stays]]).sum(-1)
        least = cost[linear_sum_assignment(cost)].sum()
        np.testing.assert_allclose(np.trace(cost), least, rtol=1e-5, atol=1e-9)
        replaced += 0 < (~stays).sum() < N
    assert replaced  # some, not all


@pytest.mark.parametrize(
    "factor, value, message",
    [
        (1, 0, "factor 1: factors are 0 to 0"),
        (-1, 0, "factor -1"),
        (0, 2, "value 2: values of shade are 0 to 1"),
        (0, -1, "value -1"),
    ],
)
def test_factors_and_values_out_of_range_are_refused(engine, factor, value, message):
    with pytest.raises(InputError, match=message):
        engine.edit(some_sets(1)[0], factor, value)
