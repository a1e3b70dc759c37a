"""Losses for images decoded from recombined code sets, which are no images of the data."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.model.layers import (
    cosine_transform,
    cosine_waves,
    from_waves,
    space_to_depth,
    to_waves,
)


def nearest_patch_loss(
    images: jax.Array,
    references: jax.Array,
    patch_size: int,
    shift: jax.Array | tuple[int, int] = (0, 0),
) -> jax.Array:
    """Mean absolute error of patches to the most similar real ones at the same position, f32 [].

    A recombined set has no target image, but in aligned images each patch should look like one of a
    real image there (a Chamfer distance). Images are f32 [B, H, W, 3], references f32 [M, H, W, 3],
    without a gradient. `shift` moves the grid of patches by rows and columns: with a random one in
    each step, no border of patches stays where two neighbours may come from different images.
    """

    def patches(x: jax.Array) -> jax.Array:
        x = jnp.roll(x.astype(jnp.float32), shift, (1, 2))
        return space_to_depth(x, patch_size).reshape(len(x), -1, 3 * patch_size**2).swapaxes(0, 1)

    ours, real = patches(images), patches(jax.lax.stop_gradient(references))
    # Only the nearest patch has a gradient. Searching without gradients keeps no array of shape
    # [places, B, M] for the backward pass.
    errors = jnp.mean(jnp.abs(jax.lax.stop_gradient(ours)[:, :, None] - real[:, None]), -1)
    nearest = jnp.argmin(errors, -1)[..., None]  # [places, B, 1]
    return jnp.mean(jnp.abs(ours - jnp.take_along_axis(real, nearest, axis=1)))


def blend(a: jax.Array, b: jax.Array, taken: jax.Array, patch_size: int) -> jax.Array:
    """Mixes images f32 [B, S, S, 3] without a seam, as targets for decoded recombined sets.

    `taken`, f32 [B, (S / patch_size)^2], is 1 where a patch is taken from `b` and 0 where from `a`.
    At the border, frequencies are those of both images, and means of patches are chosen by their
    differences (gradient-domain blending: Pérez et al. 2003, Poisson image editing).
    """
    batch, side = len(a), a.shape[1] // patch_size
    transform = cosine_transform(patch_size, 3 * patch_size**2)
    means = np.flatnonzero(np.abs(transform.reshape(patch_size**2, 3, -1).sum(0)).max(0) > 1e-3)
    of_a, of_b = (to_waves(x, patch_size, 3 * patch_size**2) for x in (a, b))
    grid = jnp.pad(taken.reshape(batch, side, side), ((0, 0), (1, 1), (1, 1)), mode="edge")
    near = grid[:, :-2, 1:-1] + grid[:, 2:, 1:-1] + grid[:, 1:-1, :-2] + grid[:, 1:-1, 2:]
    share = (taken / 2 + near.reshape(batch, -1) / 8)[..., None]
    mixed = (1 - share) * of_a + share * of_b

    whole = taken.reshape(batch, side, side, 1)
    means_a, means_b = (x[..., means].reshape(batch, side, side, -1) for x in (of_a, of_b))
    differences = []
    for axis in (1, 2):
        before, after = (jax.lax.slice_in_dim(whole, i, side - 1 + i, axis=axis) for i in (0, 1))
        share = (before + after) / 2
        steps_a, steps_b = (jnp.diff(x, axis=axis) for x in (means_a, means_b))
        differences.append((1 - share) * steps_a + share * steps_b)
    field = _nearest_values(*differences).reshape(batch, side**2, -1)
    hard = jnp.where(taken[..., None] > 0, of_b[..., means], of_a[..., means])
    smooth = field + hard.mean(1, keepdims=True)
    mixed = mixed.at[..., means].set(smooth, unique_indices=True)
    return from_waves(mixed, patch_size)


def _nearest_values(down: jax.Array, right: jax.Array) -> jax.Array:
    """Finds the values f32 [B, n, n, C] of mean 0 whose differences between neighbours are nearest
    to given ones, [B, n - 1, n, C] and [B, n, n - 1, C].

    Differences of the waves of the cosine transform are orthogonal, so each wave is fitted alone.
    """
    waves = cosine_waves(right.shape[1])
    steps = np.diff(waves, axis=0)
    squares = np.square(steps).sum(0)
    squares = squares[:, None] + squares  # of both directions
    squares[0, 0] = np.inf  # the mean is 0
    waves, steps, squares = (x.astype(np.float32) for x in (waves, steps, squares))
    einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    fitted = einsum("bxyc,xf,yg->bfgc", down, steps, waves)
    fitted += einsum("bxyc,xf,yg->bfgc", right, waves, steps)
    return einsum("bfgc,xf,yg->bxyc", fitted / squares[..., None], waves, waves)
