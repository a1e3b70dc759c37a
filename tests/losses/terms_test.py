"""Losses of pixels against NumPy in float64; that on latents that are the same for all images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pivq_jax.losses.terms import pixel_loss, variance_loss


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.sampled_from([0, 1, 3]), st.sampled_from([0, 0.25, 2]))
def test_pixel_loss_is_the_weighted_sum(seed, l1, l2):
    a, b = np.random.default_rng(seed).uniform(-1, 1, (2, 2, 4, 4, 3))
    expected = l1 * np.abs(a - b).mean() + l2 * ((a - b) ** 2).mean()
    np.testing.assert_allclose(pixel_loss(jnp.asarray(a), jnp.asarray(b), l1, l2), expected, 1e-4)


def test_variance_loss_is_the_mean_lack_of_deviation_over_the_queries():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(64, 3, 8)) * np.array([0.1, 0.2, 2.0])[:, None]
    expected = 0.0
    for query in range(3):
        variances = [np.var(latents[:, query, d]) for d in range(8)]
        expected += max(0.0, 0.25 - np.sqrt(np.mean(variances))) / 3
    assert expected > 0
    assert float(variance_loss(jnp.float32(latents))) == pytest.approx(expected, rel=1e-4)


def test_latents_that_vary_enough_are_free_whatever_their_means():
    latents = np.random.default_rng(1).normal(size=(256, 4, 16)) + 10 * np.arange(4)[:, None]
    assert float(variance_loss(jnp.float32(latents))) == 0


def test_the_gradient_drives_images_apart_and_is_finite_where_all_are_one():
    """A step against the gradient makes the loss smaller; only the silent query moves."""
    rng = np.random.default_rng(2)
    latents = rng.normal(size=(16, 2, 8)).astype(np.float32)
    latents[:, 0] *= 0.05
    gradient = jax.grad(variance_loss)(latents)
    assert np.any(gradient[:, 0] != 0) and not np.any(gradient[:, 1])
    assert variance_loss(latents - 0.1 * gradient) < variance_loss(latents)
    assert np.all(np.isfinite(jax.grad(variance_loss)(jnp.ones((4, 2, 8)))))
