"""The loss of images decoded from recombined code sets, which are no images of the data."""

import jax
import jax.numpy as jnp

from pivq_jax.model.layers import space_to_depth


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
