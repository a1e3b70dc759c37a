"""The loss on latents that are the same for all images."""

import jax
import jax.numpy as jnp

# Latents have unit variance over their D components, so the largest possible value is 1. With a
# higher target, queries stay apart that would otherwise agree, and samples get worse.
DEVIATION = 0.25
EPSILON = 1e-6  # keeps the gradient finite where all images have the same latent


def variance_loss(latents: jax.Array) -> jax.Array:
    """Penalizes queries whose latents, f32 [B, N, D], hardly differ between images, f32 [].

    Without it (Bardes et al. 2022, arXiv 2105.04906, equation 1), half of the learned queries soon
    produce the same latent for all images, and so a code that says nothing, at which the commitment
    loss then keeps them.
    """
    variance = jnp.mean(jnp.var(latents.astype(jnp.float32), axis=0), axis=-1)
    return jnp.mean(jax.nn.relu(DEVIATION - jnp.sqrt(variance + EPSILON)))
