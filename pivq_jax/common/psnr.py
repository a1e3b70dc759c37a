"""Peak signal-to-noise ratio (PSNR) of images."""

import jax
import jax.numpy as jnp
import numpy as np


def psnr(
    predictions: jax.Array | np.ndarray, targets: jax.Array | np.ndarray, peak: float
) -> jax.Array:
    """Peak signal-to-noise ratio of images [B, H, W, C] of any dtype, in dB, f32 [B].

    `peak` is the range of pixel values: 2 for images in [-1, 1], 255 for uint8. Equal images have a
    finite value, 10 log10(2^48).
    """
    error = predictions.astype(jnp.float32) - targets.astype(jnp.float32)
    mse = jnp.mean(error**2, axis=(1, 2, 3)) / peak**2
    return -10.0 * jnp.log10(jnp.maximum(mse, 2.0**-48))
