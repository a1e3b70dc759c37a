"""Pixel losses and PSNR."""

import jax
import jax.numpy as jnp


def pixel_loss(
    predictions: jax.Array, targets: jax.Array, l1_weight: float, l2_weight: float
) -> jax.Array:
    """`l1_weight * mean |error| + l2_weight * mean error ** 2`, images f32 in [-1, 1] -> f32 []."""
    error = predictions.astype(jnp.float32) - targets.astype(jnp.float32)
    return l1_weight * jnp.mean(jnp.abs(error)) + l2_weight * jnp.mean(error**2)


def psnr(predictions: jax.Array, targets: jax.Array, peak: float) -> jax.Array:
    """Peak signal-to-noise ratio in dB, one an image: [B, H, W, C] twice -> f32 [B].

    `peak` is the range of the pixel values: 2 for images in [-1, 1], 255 for uint8. Equal images
    give the value of one squared unit of error in 2**48 pixels rather than infinity.
    """
    error = predictions.astype(jnp.float32) - targets.astype(jnp.float32)
    mse = jnp.mean(error**2, axis=(1, 2, 3)) / peak**2
    return -10.0 * jnp.log10(jnp.maximum(mse, 2.0**-48))
