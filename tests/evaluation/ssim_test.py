"""SSIM against scikit-image."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from pivq_jax.common.errors import InputError
from pivq_jax.evaluation.ssim import ssim


def scikit_image(images, references, span):
    metrics = pytest.importorskip("skimage.metrics")
    return [
        metrics.structural_similarity(
            a.astype(np.float64),
            b.astype(np.float64),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=-1,
            data_range=span,
        )
        for a, b in zip(images, references)
    ]


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


@pytest.mark.parametrize("shape", [(4, 32, 32, 3), (2, 11, 40, 1)])
@pytest.mark.parametrize("deviation", [0.6, 5, 60])
def test_equals_scikit_image_on_uint8(shape, deviation):
    images = pictures(0, *shape)
    references = noised(images, deviation)
    result = ssim(images, references, 0, 255)
    assert result.shape == shape[:1] and result.dtype == np.float32
    np.testing.assert_allclose(result, scikit_image(images, references, 255), atol=1e-5)


def test_equals_scikit_image_on_the_models_range():
    images = pictures(1, 4, 32, 32, 3)
    references = noised(images, 20)
    floats = [x.astype(np.float32) / 127.5 - 1 for x in (images, references)]
    expected = scikit_image(*[x + 1 for x in floats], 2)
    np.testing.assert_allclose(ssim(*floats), expected, atol=1e-5)


def test_flat_images_keep_their_digits():
    # Nearly equal white images: here E[x**2] - E[x]**2 in float32 is wrong in the fourth digit.
    images = np.full((1, 32, 32, 3), 0.98, np.float32)
    references = images + 2e-3 * np.random.default_rng(0).normal(size=images.shape).astype("f")
    result = ssim(images, references, 0, 1)
    np.testing.assert_allclose(result, scikit_image(images, references, 1.0), atol=1e-6)


@hypothesis.given(st.integers(0, 10**6), st.floats(0, 100))
@hypothesis.settings(max_examples=15, deadline=None)
def test_symmetric_bounded_per_image_and_free_of_the_unit(seed, deviation):
    images = pictures(seed, 4, 32, 32, 3)
    references = noised(images, deviation, seed)
    values = np.asarray(ssim(images, references, 0, 255))
    assert np.all(values <= 1 + 1e-6) and np.all(values >= -1)
    np.testing.assert_allclose(ssim(references, images, 0, 255), values, atol=1e-6)
    np.testing.assert_allclose(ssim(images[::-1], references[::-1], 0, 255), values[::-1])
    floats = [x.astype(np.float32) / 127.5 - 1 for x in (images, references)]
    np.testing.assert_allclose(ssim(*floats), values, atol=1e-5)


@pytest.mark.parametrize(
    "images, references, span, words",
    [
        (np.zeros((2, 16, 16, 3)), np.zeros((2, 16, 16, 1)), (0, 1), "shapes"),
        (np.zeros((16, 16, 3)), np.zeros((16, 16, 3)), (0, 1), "shapes"),
        (np.zeros((2, 16, 10, 3)), np.zeros((2, 16, 10, 3)), (0, 1), "smaller than SSIM's window"),
        (np.zeros((2, 16, 16, 3)), np.zeros((2, 16, 16, 3)), (1, 1), "black and of white"),
    ],
)
def test_bad_input_is_named(images, references, span, words):
    with pytest.raises(InputError, match=words):
        ssim(images, references, *span)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_image_is_named(value):
    images = np.zeros((4, 32, 32, 3), np.float32)
    broken = images.copy()
    broken[2, 3, 3, 0] = value
    with pytest.raises(InputError, match="image 2 of the batch"):
        ssim(images, broken)
