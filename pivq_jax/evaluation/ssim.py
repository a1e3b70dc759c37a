"""Structural similarity (SSIM) of images."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.common.errors import InputError

__all__ = ["ssim"]

# Window and constants of Wang et al. 2004.
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
_WEIGHTS = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
_WEIGHTS = (_WEIGHTS / _WEIGHTS.sum()).astype(np.float32)


def ssim(
    images: jax.Array | np.ndarray,
    references: jax.Array | np.ndarray,
    low: float = -1.0,
    high: float = 1.0,
) -> jax.Array:
    """Mean structural similarity of each pair of images (Wang et al. 2004).

    Uses a Gaussian window of 11 x 11 pixels with sigma 1.5, K1 = 0.01, K2 = 0.03 and covariances
    divided by the sum of weights; averages over channels and over all windows inside the image.
    Runs as one jitted function in float32.

    Images and references are [B, H, W, C], H and W at least 11; `low` and `high` are the pixel
    values of black and white, (-1, 1) for model output and (0, 255) for uint8. SSIM depends on the
    origin of intensities, so values are first shifted to [0, high - low]. Returns f32 [B] in [-1,
    1]; 1 for equal images. Raises InputError if shapes or the range are invalid, or an image
    contains NaN or infinity.
    """
    if images.shape != references.shape or images.ndim != 4 or 0 in images.shape:
        raise InputError(
            f"images have shapes {images.shape} and {references.shape}: give [B, H, W, C] twice"
        )
    if min(images.shape[1:3]) < WINDOW:
        raise InputError(
            f"images of {images.shape[1]}x{images.shape[2]} pixels are smaller than SSIM's window: "
            f"use at least {WINDOW}x{WINDOW}"
        )
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"pixels from {low} to {high}: give the values of black and of white")
    values = _ssim(images, references, low, high)
    broken = np.isnan(np.asarray(values))
    if broken.any():
        raise InputError(f"image {np.argmax(broken)} of the batch holds NaN or infinity")
    return values


@jax.jit
def _ssim(images: jax.Array, references: jax.Array, low: float, high: float) -> jax.Array:
    x, y = ((z.astype(jnp.float32) - low) / (high - low) for z in (images, references))
    mean_x, mean_y = _mean(_mean(x, 1), 2), _mean(_mean(y, 1), 2)
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x**2 + mean_y**2 + K1**2)
    structure = (2 * _covariance(x, y) + K2**2) / (_covariance(x, x) + _covariance(y, y) + K2**2)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


def _shifted(x: jax.Array, axis: int) -> list[jax.Array]:
    """Returns the pixels at each position of the window, one array per position."""
    length = x.shape[axis] - WINDOW + 1
    return [jax.lax.slice_in_dim(x, i, i + length, axis=axis) for i in range(WINDOW)]


def _mean(x: jax.Array, axis: int) -> jax.Array:
    return sum(w * part for w, part in zip(_WEIGHTS, _shifted(x, axis)))


def _covariance(x: jax.Array, y: jax.Array) -> jax.Array:
    """Covariance over windows: within columns plus between their means (law of total covariance).

    In float32, `E[xy] - E[x] E[y]` would lose visible differences in flat areas.
    """

    def along(x: jax.Array, y: jax.Array, axis: int) -> jax.Array:
        mean_x, mean_y = _mean(x, axis), _mean(y, axis)
        parts = zip(_WEIGHTS, _shifted(x, axis), _shifted(y, axis))
        return sum(w * (a - mean_x) * (b - mean_y) for w, a, b in parts)

    return _mean(along(x, y, 1), 2) + along(_mean(x, 1), _mean(y, 1), 2)
