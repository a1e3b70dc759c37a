"""Pixel losses."""

import jax
import jax.numpy as jnp


def pixel_loss(
    predictions: jax.Array, targets: jax.Array, l1_weight: float, l2_weight: float
) -> jax.Array:
    """Weighted sum of mean absolute and mean squared error, f32 [].

    Images are float [B, H, W, C] in [-1, 1]; computed in float32.
    """
    error = predictions.astype(jnp.float32) - targets.astype(jnp.float32)
    return l1_weight * jnp.mean(jnp.abs(error)) + l2_weight * jnp.mean(error**2)
