"""Training images in small, and the nearest of them."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from pivq_jax.config.sections import EvaluateConfig
from pivq_jax.data import load_dataset
from pivq_jax.explore import pool as pool_module
from pivq_jax.explore.pool import SEARCH_SIZE, encode_pool, nearest, shrink


def test_shrunken_images_are_those_of_pillow():
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    size = (SEARCH_SIZE, SEARCH_SIZE)
    for image, found in zip(images, np.asarray(shrink(images)), strict=True):
        expected = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(expected).astype(int) - found).max() <= 1
    np.testing.assert_array_equal(shrink(images[:, :16, :16]), images[:, :16, :16])


def test_the_nearest_is_the_nearest():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (50, 16, 16, 3), np.uint8)
    for index in (0, 31, 49):
        noise = rng.integers(-30, 31, images[index].shape)
        blurred = np.clip(images[index] + noise, 0, 255).astype(np.uint8)
        assert nearest(blurred, images, 50) == index
        if index:
            assert nearest(images[index], images, index) < index  # the others are not there yet


@pytest.fixture
def model():
    """A stand-in whose code of an image is the value of its first pixel."""

    def encode(images):
        return jnp.round((images[:, 0, 0, :1] + 1) * 127.5).astype(jnp.int32), None

    config = SimpleNamespace(evaluate=EvaluateConfig(batch_size=32))
    return SimpleNamespace(encode_with_latents=encode, config=config)


def test_all_training_images_are_encoded_in_order(model, monkeypatch):
    train = load_dataset("random", image_size=16).train
    monkeypatch.setattr(pool_module, "POOL_IMAGES", 70)
    found = encode_pool(model, train, ("shade",))
    images = np.stack([train[i]["image"] for i in range(70)])
    np.testing.assert_array_equal(found.small, images)
    np.testing.assert_array_equal(found.codes[:, 0], images[:, 0, 0, 0])
    np.testing.assert_array_equal(found.labels, (np.arange(70) % 2)[:, None])


def test_a_batch_is_encoded_even_without_time(model, monkeypatch):
    train = load_dataset("random", image_size=16).train
    monkeypatch.setattr(pool_module, "SECONDS", 0.0)
    assert len(encode_pool(model, train, ()).codes) == 32
