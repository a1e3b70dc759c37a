"""Terms of the objective: errors of pixels, and latents that are the same for all images."""

import jax
import jax.numpy as jnp

# Latents have unit variance over their D components, so the largest possible value is 1. With a
# higher target, queries stay apart that would otherwise agree, and samples get worse.
DEVIATION = 0.25
EPSILON = 1e-6  # keeps the gradient finite where all images have the same latent


def pixel_loss(
    predictions: jax.Array, targets: jax.Array, l1_weight: float, l2_weight: float
) -> jax.Array:
    """Weighted sum of mean absolute and mean squared error, f32 [].

    Images are float [B, H, W, C] in [-1, 1]; computed in float32.
    """
    error = predictions.astype(jnp.float32) - targets.astype(jnp.float32)
    return l1_weight * jnp.mean(jnp.abs(error)) + l2_weight * jnp.mean(error**2)


def variance_loss(latents: jax.Array) -> jax.Array:
    """Penalizes queries whose latents, f32 [B, N, D], hardly differ between images, f32 [].

    Without it (Bardes et al. 2022, arXiv 2105.04906, equation 1), half of the learned queries soon
    produce the same latent for all images, and so a code that says nothing, at which the commitment
    loss then keeps them.
    """
    variance = jnp.mean(jnp.var(latents.astype(jnp.float32), axis=0), axis=-1)
    return jnp.mean(jax.nn.relu(DEVIATION - jnp.sqrt(variance + EPSILON)))
