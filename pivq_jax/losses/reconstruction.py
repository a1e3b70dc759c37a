"""Pixel losses and peak signal-to-noise ratio."""

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


def psnr(predictions: jax.Array, targets: jax.Array, peak: float) -> jax.Array:
    """Peak signal-to-noise ratio of images [B, H, W, C] of any dtype, in dB, f32 [B].

    `peak` is the range of pixel values: 2 for images in [-1, 1], 255 for uint8. Equal images have a
    finite value, 10 log10(2^48).
    """
    error = predictions.astype(jnp.float32) - targets.astype(jnp.float32)
    mse = jnp.mean(error**2, axis=(1, 2, 3)) / peak**2
    return -10.0 * jnp.log10(jnp.maximum(mse, 2.0**-48))
