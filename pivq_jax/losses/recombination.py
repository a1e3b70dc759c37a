"""What an image decoded from a recombined code set is held to: there is no target for it."""

import jax
import jax.numpy as jnp

# Small enough that a patch may take its colour from one parent and its neighbour from the other,
# large enough to show more than a colour.
PATCH_SIZE = 8


def nearest_patch_loss(
    images: jax.Array, references: jax.Array, patch_size: int = PATCH_SIZE
) -> jax.Array:
    """Mean absolute error of each patch to the most similar real patch at the same place.

    A recombined set has no image of its own to be compared with, but in aligned images each of its
    patches should look like a patch that some real image has there. Averages of two colours and
    noise, what an untrained decoder makes of an unseen combination, are near no real patch. It is
    the Chamfer distance from patches to real patches, taken place by place; no gradient flows into
    the references.

    Args:
        images: f32 [B, H, W, 3], decoded from recombined sets.
        references: f32 [M, H, W, 3], real images.
        patch_size: side of the patches, which do not overlap; divides H and W.

    Returns:
        f32 [].
    """

    def patches(x: jax.Array) -> jax.Array:
        count, height, width, channels = x.shape
        p = patch_size
        x = x.astype(jnp.float32).reshape(count, height // p, p, width // p, p, channels)
        return x.transpose(1, 3, 0, 2, 4, 5).reshape(-1, count, p * p * channels)

    ours, real = patches(images), patches(jax.lax.stop_gradient(references))
    # The gradient is that of the nearest alone; found apart, nothing of [places, B, M] is kept.
    errors = jnp.mean(jnp.abs(jax.lax.stop_gradient(ours)[:, :, None] - real[:, None]), -1)
    nearest = jnp.argmin(errors, -1)[..., None]  # [places, B, 1]
    return jnp.mean(jnp.abs(ours - jnp.take_along_axis(real, nearest, axis=1)))
