"""Hinge losses, the adaptive weight and augmentation against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pivq_jax.losses import adversarial
from pivq_jax.losses.adversarial import adaptive_weight, discriminator_hinge, generator_hinge

augment = jax.jit(adversarial.augment, static_argnums=2)

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (5, 16, 24, 3)).astype(np.float32)


def nchw(images: np.ndarray) -> torch.Tensor:
    return torch.tensor(images).permute(0, 3, 1, 2)


def test_hinge_losses():
    real, fake = (RNG.normal(0, 2, (4, 6, 6)).astype(np.float32) for _ in range(2))
    torch_real, torch_fake = torch.tensor(real), torch.tensor(fake)
    expected = 0.5 * (F.relu(1 - torch_real).mean() + F.relu(1 + torch_fake).mean())
    assert float(discriminator_hinge(real, fake)) == pytest.approx(expected.item(), abs=1e-6)
    assert float(generator_hinge(fake)) == pytest.approx(-torch_fake.mean().item(), abs=1e-6)
    assert discriminator_hinge(jnp.full(3, 1.5), jnp.full(3, -1.5)) == 0


def test_adaptive_weight_is_the_ratio_of_gradients_at_the_last_layer():
    hidden = RNG.normal(size=(8, 5)).astype(np.float32)
    kernel = RNG.normal(size=(5, 3)).astype(np.float32)
    target = RNG.normal(size=(8, 3)).astype(np.float32)

    def reconstruction(kernel):
        return jnp.mean(jnp.abs(hidden @ kernel - target))

    def adversarial(kernel):
        return -jnp.mean(jnp.tanh(hidden @ kernel))

    pair = jax.grad(reconstruction)(kernel), jax.grad(adversarial)(kernel)

    last = torch.tensor(kernel, requires_grad=True)
    output = torch.tensor(hidden) @ last
    losses = (output - torch.tensor(target)).abs().mean(), -torch.tanh(output).mean()
    ours, theirs = (torch.autograd.grad(loss, last, retain_graph=True)[0] for loss in losses)
    expected = torch.clamp(ours.norm() / (theirs.norm() + 1e-4), 0, 1e4).item()
    assert float(adaptive_weight(*pair, 1e4)) == pytest.approx(expected, rel=1e-5)
    assert adaptive_weight(*pair, 0.5) == 0.5
    assert adaptive_weight(pair[0], jnp.zeros((5, 3)), 100.0) == 100.0  # not infinite
    gradient = jax.grad(lambda x: adaptive_weight(x, pair[1], 1e4))(pair[0])
    np.testing.assert_array_equal(gradient, 0)


KEY = jax.random.key(7)


def augmented(name: str) -> tuple[jax.Array, jax.Array]:
    """The images under a policy of one augmentation, and the key of its draws."""
    return augment(jnp.asarray(IMAGES), KEY, (name,)), jax.random.split(KEY, 1)[0]


def test_colour():
    ours, key = augmented("colour")
    draws = np.array(jax.random.uniform(key, (3, 5)))
    x, (shift, first, second) = nchw(IMAGES), torch.tensor(draws)[..., None, None, None]
    x = x + (shift - 0.5)
    mean = x.mean(dim=1, keepdim=True)
    x = (x - mean) * (first * 2) + mean
    mean = x.mean(dim=[1, 2, 3], keepdim=True)
    x = (x - mean) * (second + 0.5) + mean
    np.testing.assert_allclose(ours, x.permute(0, 2, 3, 1), atol=1e-5)


def test_translation():
    ours, key = augmented("translation")
    limit = np.array([2, 3])
    offset = np.array(jax.random.randint(key, (5, 2), -limit, limit + 1))
    x = F.pad(nchw(IMAGES), (24, 24, 16, 16))
    moved = [x[i, :, 16 - dy : 32 - dy, 24 - dx : 48 - dx] for i, (dy, dx) in enumerate(offset)]
    np.testing.assert_array_equal(ours, torch.stack(moved).permute(0, 2, 3, 1))
    assert (offset < 0).any() and (offset > 0).any()


def test_cutout():
    ours, key = augmented("cutout")
    centre = np.array(jax.random.randint(key, (5, 2), 0, np.array([17, 25])))
    mask = torch.ones(5, 16, 24)
    for i, (y, x) in enumerate(centre.tolist()):
        rows = torch.arange(16).clamp(y - 4, y + 3) == torch.arange(16)
        columns = torch.arange(24).clamp(x - 6, x + 5) == torch.arange(24)
        mask[i][rows[:, None] & columns[None]] = 0
    np.testing.assert_array_equal(ours, torch.tensor(IMAGES) * mask[..., None])


def test_augmentation_differs_by_image_and_key_and_passes_gradients():
    same = jnp.broadcast_to(jnp.asarray(IMAGES[0]), (4, 16, 24, 3))
    policy = ("colour", "translation", "cutout")
    first, again, other = (augment(same, jax.random.key(k), policy) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other) and not np.allclose(first[0], first[1])
    np.testing.assert_array_equal(augment(same, jax.random.key(0), ()), same)
    weights = jnp.asarray(RNG.normal(size=same.shape), jnp.float32)
    for name in policy:

        @jax.jit
        @jax.value_and_grad
        def weighted(x, name=name):
            return jnp.sum(weights * augment(x, jax.random.key(0), (name,)))

        # Linear in the images, so x . gradient is the value itself, but for the brightness.
        (value, gradient), (zero, _) = weighted(same), weighted(jnp.zeros_like(same))
        expected = float(value) - float(zero)
        assert float(np.vdot(same, gradient)) == pytest.approx(expected, rel=1e-3), name


def test_translations_and_cutouts_stay_within_their_limits():
    ones = jnp.ones((500, 16, 16, 1))
    moved = np.asarray(augment(ones, jax.random.key(0), ("translation",)))
    kept = moved.sum((1, 2, 3))
    assert kept.max() == 256 and kept.min() == 14 * 14  # at most an eighth, 2 pixels, either way
    cut = 256 - np.asarray(augment(ones, jax.random.key(0), ("cutout",))).sum((1, 2, 3))
    assert cut.max() == 64 and cut.min() == 16  # half the side; a quarter of it at a corner
