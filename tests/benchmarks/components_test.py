"""Principal components and their quantization, against NumPy."""

import numpy as np
import pytest

from benchmarks import components


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Mixtures of twelve patterns, with a little noise."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(0, 1, (12, 8 * 8 * 3)) * (1.5 ** -np.arange(12))[:, None]
    values = 128 + 25 * rng.normal(size=(700, 12)) @ patterns + rng.normal(0, 1, (700, 192))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).reshape(700, 8, 8, 3)


@pytest.mark.parametrize("mirrored", [False, True])
def test_components_are_those_of_a_singular_value_decomposition(images, mirrored):
    found = components.fit(images, 6, mirrored)
    seen = np.concatenate([images, images[:, :, ::-1]]) if mirrored else images
    flat = seen.reshape(len(seen), -1).astype(np.float64)
    centred = flat - flat.mean(0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(found.mean, flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.deviations, lengths[:6] / np.sqrt(len(seen)), rtol=1e-3)
    np.testing.assert_allclose(np.abs(np.diag(directions[:6] @ found.basis)), 1, atol=1e-2)
    values = found.transform(images)
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(6), atol=1e-4)
    expected = np.rint(np.clip(values @ found.basis.T + found.mean, 0, 255))
    np.testing.assert_array_equal(found.images(values, images).reshape(700, -1), expected)


def test_components_are_dealt_so_that_products_of_variances_are_alike():
    deviations = np.exp(-np.arange(64) / 10)
    slots = components.deal(deviations)
    assert sorted(slots.ravel()) == [*range(64)] and slots.shape == (8, 8)
    products = np.log(deviations)[slots].sum(1)
    assert np.ptp(products) < 0.1 * np.ptp(np.log(deviations))


def test_quantized_values_are_sums_of_the_nearest_entries(images):
    found = components.fit(images, 16, False)
    values = found.transform(images)
    quantizer = components.fit_quantizer(values, found.deviations)
    assert quantizer.bits == 2 * 2 * 8
    result = quantizer.quantize(values)
    for slot, first, second in zip(quantizer.slots, *quantizer.codebooks, strict=True):
        for i in (0, 333):
            one = first[np.square(values[i, slot] - first).sum(1).argmin()]
            two = second[np.square(values[i, slot] - one - second).sum(1).argmin()]
            np.testing.assert_allclose(result[i, slot], one + two, atol=1e-3)
    assert np.square(result - values).mean() < 0.05 * np.square(values).mean()
