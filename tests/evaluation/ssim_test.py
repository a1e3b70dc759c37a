"""SSIM against scikit-image."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from pivq_jax.evaluation.reconstruction import ssim


def scikit_image(images, references):
    metrics = pytest.importorskip("skimage.metrics")
    return [
        metrics.structural_similarity(
            a.astype(np.float64) + 1,
            b.astype(np.float64) + 1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=-1,
            data_range=2,
        )
        for a, b in zip(images, references)
    ]


def in_range(images):
    """f32 in [-1, 1] of uint8."""
    return images.astype(np.float32) / 127.5 - 1


def pictures(seed, *shape):
    """uint8 with flat areas, edges, ramps and noise."""
    rng = np.random.default_rng(seed)
    images = np.full(shape, 255, np.uint8)
    for image in images:
        height, width, channels = image.shape
        top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
        image[top : top + height // 2, left : left + width // 2] = rng.integers(0, 256, channels)
        image[:, -width // 4 :] = np.linspace(0, 255, height)[:, None, None]
        image[: height // 4] = rng.integers(0, 256, image[: height // 4].shape)
    return images


def noised(images, deviation, seed=0):
    noise = np.random.default_rng(seed).normal(size=images.shape) * deviation
    return np.clip(images + noise, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("shape, deviation", [((4, 32, 32, 3), 0.6), ((2, 11, 40, 1), 60)])
def test_equals_scikit_image(shape, deviation):
    shown = pictures(0, *shape)
    images, references = in_range(shown), in_range(noised(shown, deviation))
    result = ssim(images, references)
    assert result.shape == shape[:1] and result.dtype == np.float32
    np.testing.assert_allclose(result, scikit_image(images, references), atol=1e-5)


def test_flat_images_keep_their_digits():
    # Nearly equal white images: here E[x**2] - E[x]**2 in float32 is wrong in the fourth digit.
    images = np.full((1, 32, 32, 3), 0.96, np.float32)
    references = images + 4e-3 * np.random.default_rng(0).normal(size=images.shape).astype("f")
    result = ssim(images, references)
    np.testing.assert_allclose(result, scikit_image(images, references), atol=1e-6)


@hypothesis.given(st.integers(0, 10**6), st.floats(0, 100))
@hypothesis.settings(max_examples=15)
def test_symmetric_bounded_and_per_image(seed, deviation):
    shown = pictures(seed, 4, 32, 32, 3)
    images, references = in_range(shown), in_range(noised(shown, deviation, seed))
    values = np.asarray(ssim(images, references))
    assert np.all(values <= 1 + 1e-6) and np.all(values >= -1)
    np.testing.assert_allclose(ssim(references, images), values, atol=1e-6)
    np.testing.assert_allclose(ssim(images[::-1], references[::-1]), values[::-1])
