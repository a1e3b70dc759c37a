"""The loss on latents that are the same for all images."""

import jax
import jax.numpy as jnp

# Latents have unit variance over their D components, so the largest possible value is 1. With a
# higher target, queries stay apart that would otherwise agree, and samples get worse.
DEVIATION = 0.25
EPSILON = 1e-6  # keeps the gradient finite where all images have the same latent


def variance_loss(latents: jax.Array) -> jax.Array:
    """Penalizes queries whose latents hardly differ between images.

    Source: Bardes et al. 2022, arXiv 2105.04906, equation 1.

    Without this term, half of the learned queries soon produce nearly the same latent for all
    images. Relative to the codebook entries these latents coincide, so they are quantized to one
    code that occurs in every image and carries no information, and the commitment loss then keeps
    them there.

    Args:
        latents: f32 [B, N, D], in query order.

    Returns:
        f32 [], the mean over queries of `relu(DEVIATION - deviation)`, where the deviation of a
        query is its standard deviation over the batch (root mean square over D).
    """
    variance = jnp.mean(jnp.var(latents.astype(jnp.float32), axis=0), axis=-1)
    return jnp.mean(jax.nn.relu(DEVIATION - jnp.sqrt(variance + EPSILON)))
