"""The loss on queries that tell the same about an image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from pivq_jax.losses.redundancy import LEAST_BATCH, redundancy_loss
from tests.reference.training import redundancy


@pytest.mark.parametrize("shape", [(LEAST_BATCH, 2, 3), (16, 5, 8), (33, 3, 1)])
def test_is_the_mean_alignment_of_all_pairs(shape):
    rng = np.random.default_rng(0)
    latents = rng.normal(size=shape) + 3 * rng.normal(size=(shape[0], 1, 1)) + 5.0
    expected = redundancy(torch.from_numpy(latents).float()).item()
    assert float(redundancy_loss(jnp.float32(latents))) == pytest.approx(expected, abs=1e-5)


def test_is_one_for_rotations_of_each_other_and_whatever_their_scale_and_mean():
    rng = np.random.default_rng(1)
    latents = rng.normal(size=(16, 8))
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    both = np.stack([latents, 0.1 * latents @ rotation + 2.0], 1)
    assert float(redundancy_loss(jnp.float32(both))) == pytest.approx(1.0, abs=1e-4)


def test_is_zero_on_average_for_independent_latents_of_few_images():
    """The biased estimate would be about a half here."""
    latents = np.random.default_rng(2).normal(size=(500, 8, 3, 16)).astype(np.float32)
    losses = np.asarray(jax.jit(jax.vmap(redundancy_loss))(latents))
    assert abs(losses.mean()) < 4 * losses.std() / np.sqrt(len(losses))
    assert losses.min() < 0 < losses.max() < 0.5


def test_the_gradient_makes_queries_differ_and_is_finite_where_all_images_are_one():
    rng = np.random.default_rng(3)
    latents = rng.normal(size=(16, 1, 8)) + 0.3 * rng.normal(size=(16, 4, 8))
    latents = latents.astype(np.float32)
    before, gradient = jax.value_and_grad(redundancy_loss)(latents)
    assert before > 0.5 and redundancy_loss(latents - 5 * gradient) < before - 0.01
    latents[:, 0] = 1.0
    assert np.all(np.isfinite(jax.grad(redundancy_loss)(latents)))
