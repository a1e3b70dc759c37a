"""The losses on latents that are the same for all images, and on those that repeat others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pivq_jax.losses.latents import redundancy_loss, variance_loss


def test_is_the_mean_lack_of_deviation_over_the_queries():
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


def test_redundancy_is_the_mean_rv_coefficient_of_numpy():
    rng = np.random.default_rng(3)
    latents = 9 * (rng.normal(size=(7, 5, 3, 4)) + rng.normal(size=(5, 3, 4)))  # a mean for each
    latents[:, :, 1] += 2 * latents[:, :, 0]
    rows = (latents - latents.mean(0)).reshape(35, 3, 4)

    def together(i, j):
        return np.sum((rows[:, i].T @ rows[:, j] / 35) ** 2)

    pairs = ((0, 1), (0, 2), (1, 2))
    expected = [together(i, j) / np.sqrt(together(i, i) * together(j, j)) for i, j in pairs]
    result = redundancy_loss(jnp.float32(latents.reshape(7, 15, 4)), 5)
    assert float(result) == pytest.approx(np.mean(expected), rel=1e-3)


def test_rotated_copies_of_a_latent_cost_and_what_is_new_does_not():
    rng = np.random.default_rng(4)
    said = 3 * rng.normal(size=(400, 2, 6)).astype(np.float32)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0].astype(np.float32)
    copies = np.stack([said[:, 0], 0.5 * said[:, 0] @ rotation], 1)
    assert float(redundancy_loss(jnp.asarray(copies), 1)) == pytest.approx(1, abs=0.02)
    assert float(redundancy_loss(jnp.asarray(said), 1)) < 0.03
    assert float(redundancy_loss(jnp.asarray(0.01 * copies), 1)) < 1e-3  # as in the first steps


def test_a_step_against_its_gradient_makes_copies_differ():
    copies = np.repeat(np.random.default_rng(5).normal(size=(16, 4, 1, 8)), 2, 2)
    latents = jnp.float32(copies.reshape(16, 8, 8))
    gradient = jax.grad(redundancy_loss)(latents, 4)
    assert redundancy_loss(latents - gradient, 4) < redundancy_loss(latents, 4)
    assert np.all(np.isfinite(jax.grad(redundancy_loss)(jnp.ones((4, 8, 8)), 4)))
