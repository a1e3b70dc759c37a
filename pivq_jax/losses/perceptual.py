"""LPIPS, a perceptual distance between images (Zhang et al. 2018, arXiv 1801.03924), version 0.1.

docs/perceptual.md says how it compares images; `lpips_weights` loads its weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from pivq_jax.common.errors import InputError
from pivq_jax.losses.backbones import VGG16, AlexNet, get_backbone

__all__ = ["lpips", "lpips_distance", "lpips_features"]

# Mean and standard deviation of ImageNet pixels, for images in [-1, 1].
_MEAN = (-0.030, -0.088, -0.188)
_DEVIATION = (0.458, 0.448, 0.450)

# Keeps the gradient finite where all channels are zero; relevant features are far larger.
_EPSILON = 1e-10


def lpips(
    params: Mapping[str, Any], images_a: jax.Array, images_b: jax.Array, network: str = "alex"
) -> jax.Array:
    """LPIPS distance of each pair of images.

    For equal images, the distance and its gradient are 0 up to rounding.

    Args:
        params: parameters from `load_lpips(network)`.
        images_a: [B, H, W, 3] in [-1, 1], any float dtype; computed in float32. H and W are at
            least 31 (`alex`) or 16 (`vgg`).
        images_b: same as `images_a`.
        network: `alex` (light, and closest to human judgements) or `vgg` (smoother gradients, about
            25 times the computation).

    Returns:
        f32 [B].

    Raises:
        InputError: if the network is unknown or images are too small for it.
    """
    a, b = (lpips_features(params, x, network) for x in (images_a, images_b))
    return lpips_distance(params, a, b)


def lpips_features(
    params: Mapping[str, Any], images: jax.Array, network: str = "alex"
) -> list[jax.Array]:
    """Features that `lpips_distance` compares, for images that are compared several times.

    Arguments and errors are those of `lpips`. Returns five arrays f32 [B, h, w, C] of unit length
    along C.
    """
    backbone, (_, height, width, _) = get_backbone(network)(), images.shape
    if min(height, width) < (minimum := backbone.minimum_size):
        raise InputError(
            f"images of {height}x{width} pixels: the perceptual network {network!r} needs at least"
            f" {minimum}x{minimum}"
        )
    return [unit(x) for x in feature_maps(backbone, params, images)]


def feature_maps(
    backbone: AlexNet | VGG16, params: Mapping[str, Any], images: jax.Array
) -> list[jax.Array]:
    """The feature maps f32 [B, h, w, C] of images as `lpips` takes them, of any length."""
    mean, deviation = (jnp.asarray(x, jnp.float32) for x in (_MEAN, _DEVIATION))
    normalized = (images.astype(jnp.float32) - mean) / deviation
    maps: Any = backbone.apply({"params": params["backbone"]}, normalized)
    return list(maps)


def unit(x: jax.Array) -> jax.Array:
    """Scales feature maps f32 [B, h, w, C] to unit length along C."""
    return x * jax.lax.rsqrt(jnp.sum(x**2, -1, keepdims=True) + _EPSILON)


def lpips_distance(
    params: Mapping[str, Any], features_a: Sequence[jax.Array], features_b: Sequence[jax.Array]
) -> jax.Array:
    """LPIPS distance f32 [B] of images given by their `lpips_features`, with the same params."""
    heads = params["heads"]
    total = jnp.zeros((), jnp.float32)
    for i, (a, b) in enumerate(zip(features_a, features_b, strict=True)):
        total += jnp.mean(jnp.sum((a - b) ** 2 * heads[f"block_{i}"], -1), (1, 2))
    return total
