"""The loss on images decoded from recombined sets."""

import jax
import numpy as np
import pytest

from pivq_jax.training import recombination

nearest_patch_loss = jax.jit(recombination.nearest_patch_loss, static_argnums=2)


def brute_force(images, references, size):
    errors = []
    for image in images:
        for y in range(0, image.shape[0], size):
            for x in range(0, image.shape[1], size):
                place = np.s_[y : y + size, x : x + size]
                errors.append(min(np.mean(np.abs(image[place] - r[place])) for r in references))
    return np.mean(errors)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_is_the_mean_of_the_nearest_patches(size):
    rng = np.random.default_rng(size)
    images, references = (rng.normal(size=(n, 8, 16, 3)).astype(np.float32) for n in (3, 5))
    loss = nearest_patch_loss(images, references, size)
    np.testing.assert_allclose(loss, brute_force(images, references, size), rtol=1e-5)


@pytest.mark.parametrize("shift", [(0, 3), (1, 0), (3, 2)])
def test_the_grid_of_patches_moves_around_the_border(shift):
    rng = np.random.default_rng(0)
    images, references = (rng.normal(size=(n, 8, 16, 3)).astype(np.float32) for n in (3, 5))
    loss = nearest_patch_loss(images, references, 4, shift)
    moved = [np.roll(x, shift, (1, 2)) for x in (images, references)]
    np.testing.assert_allclose(loss, brute_force(*moved, 4), rtol=1e-5)
    assert abs(loss - nearest_patch_loss(images, references, 4)) > 1e-4


def test_a_patchwork_of_real_images_at_their_places_is_free_but_not_elsewhere():
    references = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    patchwork = np.concatenate([references[:1, :, :4], references[2:3, :, 4:]], axis=2)
    assert nearest_patch_loss(patchwork, references, 4) == 0.0
    assert nearest_patch_loss(patchwork, references, 4, (0, 2)) > 0.1  # sees where they meet
    assert nearest_patch_loss(patchwork[:, :, ::-1], references, 4) > 0.1


def test_gradient_reaches_the_images_alone():
    rng = np.random.default_rng(1)
    images, references = (rng.normal(size=(2, 4, 4, 3)).astype(np.float32) for _ in range(2))
    by_image, by_reference = jax.grad(nearest_patch_loss, (0, 1))(images, references, 4)
    np.testing.assert_allclose(np.abs(by_image), 1 / images.size, rtol=1e-5)
    assert not np.any(by_reference)
