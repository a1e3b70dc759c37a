"""Checks of the arrays that are given to a trained model."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

MAX_ABS_PIXEL = 1.5  # allow resize overshoot; reject [0, 255] or standardized images


def check_images(images: ArrayLike, size: int, visible: ArrayLike | None = None) -> jax.Array:
    """Checks images, floating point [B, size, size, 3], finite, in [-1, 1] up to overshoot.

    Pixels that are not `visible` (see `check_visible`) are not read, and 0 in what is returned.
    """
    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[1:] != (size, size, 3) or not len(images):
        shape = f"[B, {size}, {size}, 3], B at least 1"
        raise ValueError(f"images have shape {images.shape}: give {shape}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images have dtype {images.dtype}: give floats in [-1, 1]")
    if visible is not None:
        images = jnp.where(check_visible(visible, images.shape) > 0, images, 0)
    finite = np.asarray(jnp.isfinite(images).all((1, 2, 3)))
    if not finite.all():
        raise ValueError(f"image {int(np.argmin(finite))} is not finite: give floats in [-1, 1]")
    low, high = images.min(), images.max()
    if max(-low, high) > MAX_ABS_PIXEL:
        raise ValueError(f"images range from {low:g} to {high:g}: give floats in [-1, 1]")
    return images


def check_visible(visible: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Checks which pixels are visible, bool [H, W] or [B, H, W]; returns float32 [B, H, W, 1]."""
    visible = jnp.asarray(visible)
    count, height, width = shape[:3]
    if visible.dtype != bool or visible.shape not in ((height, width), (count, height, width)):
        raise ValueError(
            f"visible is {visible.dtype} {visible.shape}: give bool [{height}, {width}] or"
            f" [{count}, {height}, {width}]"
        )
    if not jnp.all(visible.any((-2, -1))):
        raise ValueError("no pixel of an image is visible: use sample or sample_prior")
    return jnp.broadcast_to(visible, shape[:3]).astype(jnp.float32)[..., None]
