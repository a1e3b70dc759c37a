"""Loss for images decoded from recombined code sets, which have no target image."""

import jax
import jax.numpy as jnp


def nearest_patch_loss(
    images: jax.Array,
    references: jax.Array,
    patch_size: int,
    shift: jax.Array | tuple[int, int] = (0, 0),
) -> jax.Array:
    """Mean absolute error of each patch to the most similar real patch at the same position.

    A recombined set has no target image, but in aligned images each patch should look like a patch
    of some real image at that position. An average of two colours, or the noise that an untrained
    decoder produces for an unseen combination, is far from every real patch. The loss is the
    Chamfer distance from patches to real patches, computed separately for each position. No
    gradient flows into the references.

    Args:
        images: f32 [B, H, W, 3], decoded from recombined sets.
        references: f32 [M, H, W, 3], real images.
        patch_size: side of the non-overlapping patches in pixels; divides H and W.
        shift: int [2], rows and columns by which the grid of patches is moved; patches at one
            border go on at the opposite one. With a random shift in each step, no border of patches
            stays where two neighbours may come from different images.

    Returns:
        f32 [].
    """

    def patches(x: jax.Array) -> jax.Array:
        count, height, width, channels = x.shape
        p = patch_size
        x = jnp.roll(x.astype(jnp.float32), shift, (1, 2))
        x = x.reshape(count, height // p, p, width // p, p, channels)
        return x.transpose(1, 3, 0, 2, 4, 5).reshape(-1, count, p * p * channels)

    ours, real = patches(images), patches(jax.lax.stop_gradient(references))
    # Only the nearest patch has a gradient. Searching without gradients keeps no array of shape
    # [places, B, M] for the backward pass.
    errors = jnp.mean(jnp.abs(jax.lax.stop_gradient(ours)[:, :, None] - real[:, None]), -1)
    nearest = jnp.argmin(errors, -1)[..., None]  # [places, B, 1]
    return jnp.mean(jnp.abs(ours - jnp.take_along_axis(real, nearest, axis=1)))
