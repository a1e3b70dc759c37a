"""Hinge losses against PyTorch, and what the discriminator sees of an image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pivq_jax.losses import adversarial
from pivq_jax.losses.adversarial import discriminator_hinge, generator_hinge

views = jax.jit(adversarial.views)

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (6, 16, 24, 3)).astype(np.float32)


def test_hinge_losses():
    real, fake = (RNG.normal(0, 2, (4, 36)).astype(np.float32) for _ in range(2))
    torch_real, torch_fake = torch.tensor(real), torch.tensor(fake)
    expected = 0.5 * (F.relu(1 - torch_real).mean() + F.relu(1 + torch_fake).mean())
    assert float(discriminator_hinge(real, fake)) == pytest.approx(expected.item(), abs=1e-6)
    assert float(generator_hinge(fake)) == pytest.approx(-torch_fake.mean().item(), abs=1e-6)
    assert discriminator_hinge(jnp.full(3, 1.5), jnp.full(3, -1.5)) == 0


def places_of(view: np.ndarray, image: np.ndarray) -> list[tuple[int, int]]:
    """Where a view is a part of an image."""
    windows = np.lib.stride_tricks.sliding_window_view(image, view.shape[:2], (0, 1))
    same = (np.moveaxis(windows, 2, -1) == view).all((2, 3, 4))
    return [*zip(*np.nonzero(same), strict=True)]


def test_even_images_are_cropped_and_odd_ones_halved():
    seen = np.asarray(views(IMAGES, jax.random.key(1)))
    assert seen.shape == (6, 8, 12, 3)
    crops = [places_of(seen[i], IMAGES[i]) for i in (0, 2, 4)]
    assert all(len(places) == 1 for places in crops)
    torch_images = torch.tensor(IMAGES[1::2]).permute(0, 3, 1, 2)
    halved = F.avg_pool2d(torch_images, 2).permute(0, 2, 3, 1)
    np.testing.assert_allclose(seen[1::2], halved, atol=1e-6)


def test_crops_are_anywhere_and_equal_keys_give_equal_places():
    image = np.broadcast_to(IMAGES[:1], (400, 16, 24, 3))
    seen, other = np.asarray(views(image, jax.random.key(2))), IMAGES[1:2]
    places = [places_of(view, IMAGES[0])[0] for view in seen[::2]]
    rows, columns = (np.array(axis) for axis in zip(*places, strict=True))
    assert {*rows} == {*range(9)} and {*columns} == {*range(13)}
    again = np.asarray(views(np.broadcast_to(other, image.shape), jax.random.key(2)))
    assert [places_of(view, other[0])[0] for view in again[::2]] == places


def test_gradients_reach_the_pixels_that_are_seen():
    weights = RNG.normal(size=(6, 8, 12, 3)).astype(np.float32)
    weighted = jax.value_and_grad(lambda x: jnp.sum(weights * views(x, jax.random.key(1))))
    value, gradient = weighted(jnp.asarray(IMAGES))
    assert float(np.vdot(IMAGES, gradient)) == pytest.approx(float(value), rel=1e-3)  # linear
    assert (np.asarray(gradient[0]).any(-1)).sum() == 8 * 12
