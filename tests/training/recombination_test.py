"""The loss on images decoded from recombined sets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pivq_jax.training import recombination

nearest_patch_loss = jax.jit(recombination.nearest_patch_loss, static_argnums=2)
blend = jax.jit(recombination.blend, static_argnums=3)


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


def test_a_blend_has_the_patches_of_its_images_but_for_their_border_and_light():
    """All frequencies but the means of patches are kept."""
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-1, 1, (2, 2, 12, 12, 3)).astype(np.float32)
    b = b + np.float32(0.5)
    taken = np.array([[0, 0, 1, 0, 0, 1, 0, 1, 1], [0] * 9], np.float32)
    found = np.asarray(blend(jnp.asarray(a), jnp.asarray(b), jnp.asarray(taken), 4))
    np.testing.assert_allclose(found[1], a[1], atol=1e-5)  # nothing taken, nothing changed

    def patches(image):
        return image.reshape(3, 4, 3, 4, 3).swapaxes(1, 2).reshape(9, 16, 3)

    new, of_a, of_b = (patches(x[0]) for x in (found, a, b))
    detail = [x - x.mean(1, keepdims=True) for x in (new, of_a, of_b)]
    for place in (0, 3, 8):  # far from the border
        source = detail[2] if taken[0, place] else detail[1]
        np.testing.assert_allclose(detail[0][place], source[place], atol=1e-4)
    at = detail[1][2] / 8 + detail[2][2] * 7 / 8  # one of four neighbours is of the other image
    np.testing.assert_allclose(detail[0][2], at, atol=1e-4)


@pytest.mark.parametrize("side", [2, 5, 8])
def test_means_of_a_blend_are_those_of_the_pseudo_inverse(side):
    rng = np.random.default_rng(side)
    a, b = rng.uniform(-1, 1, (2, 3, 2 * side, 2 * side, 3)).astype(np.float32)
    taken = rng.integers(0, 2, (3, side**2)).astype(np.float32)
    found = np.asarray(blend(jnp.asarray(a), jnp.asarray(b), jnp.asarray(taken), 2))
    new, of_a, of_b = (
        x.reshape(3, side, 2, side, 2, 3).mean((2, 4)).reshape(3, side**2, 3) for x in (found, a, b)
    )
    number = np.arange(side**2).reshape(side, side)
    first = np.concatenate([number[:, :-1].ravel(), number[:-1].ravel()])
    second = np.concatenate([number[:, 1:].ravel(), number[1:].ravel()])
    share = (taken[:, first] + taken[:, second])[..., None] / 2
    steps_a, steps_b = (x[:, second] - x[:, first] for x in (of_a, of_b))
    inverse = np.linalg.pinv(np.eye(side**2)[second] - np.eye(side**2)[first])
    hard = np.where(taken[..., None] > 0, of_b, of_a).mean(1, keepdims=True)
    expected = inverse @ ((1 - share) * steps_a + share * steps_b) + hard
    np.testing.assert_allclose(new, expected, atol=3e-6)


def test_a_blend_of_4096_patches_needs_no_matrix_of_all_patches():
    """A pseudo-inverse of their differences took minutes; `b` is `a` in another light."""
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.uniform(-1, 1, (1, 128, 128, 3)), jnp.float32)
    taken = jnp.asarray(rng.integers(0, 2, (1, 64**2)), jnp.float32)
    program = jax.jit(blend, static_argnums=3).lower(a, a + 0.5, taken, 2).as_text()
    assert len(program) < 2**20  # with its constants
    found = np.asarray(blend(a, a + 0.5, taken, 2))
    np.testing.assert_allclose(found, a + 0.5 * taken.mean(), atol=1e-5)
