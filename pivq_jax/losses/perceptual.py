"""LPIPS, a perceptual distance between images (Zhang et al. 2018, arXiv 1801.03924), version 0.1.

Two images are compared by the features of a network trained for classification, which represents
edges, texture and parts where a pixel loss compares single pixels. At five depths, features are
normalized to unit length at each position; their squared differences are weighted by channel (the
"heads", which the authors fitted to human judgements), averaged over positions and summed::

    params = load_lpips("alex")                      # once; see perceptual_weights
    loss = lpips(params, images, targets, "alex")    # pass params through jit as an argument
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from pivq_jax.common.errors import InputError
from pivq_jax.losses.backbones import get_backbone

# Mean and standard deviation of ImageNet pixels, for images in [-1, 1].
_MEAN = (-0.030, -0.088, -0.188)
_DEVIATION = (0.458, 0.448, 0.450)

# Keeps the gradient finite where all channels are zero; relevant features are far larger.
_EPSILON = 1e-10


def normalize_images(images: jax.Array) -> jax.Array:
    """Normalizes images [..., 3] in [-1, 1] with ImageNet's mean and standard deviation, to f32."""
    return (images.astype(jnp.float32) - jnp.asarray(_MEAN)) / jnp.asarray(_DEVIATION)


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

    Args:
        params: parameters from `load_lpips(network)`.
        images: [B, H, W, 3] in [-1, 1], any float dtype.
        network: see `lpips`.

    Returns:
        Five arrays f32 [B, h, w, C] of unit length along C.

    Raises:
        InputError: if the network is unknown or images are too small for it.
    """
    backbone, (_, height, width, _) = get_backbone(network)(), images.shape
    if min(height, width) < (minimum := backbone.minimum_size):
        raise InputError(
            f"images of {height}x{width} pixels: the perceptual network {network!r} needs at least"
            f" {minimum}x{minimum}"
        )
    features: Any = backbone.apply({"params": params["backbone"]}, normalize_images(images))
    return [x * jax.lax.rsqrt(jnp.sum(x**2, -1, keepdims=True) + _EPSILON) for x in features]


def lpips_distance(
    params: Mapping[str, Any], features_a: Sequence[jax.Array], features_b: Sequence[jax.Array]
) -> jax.Array:
    """LPIPS distance of images given by their features.

    Args:
        params: parameters from `load_lpips(network)`.
        features_a: features from `lpips_features`.
        features_b: same as `features_a`.

    Returns:
        f32 [B].
    """
    heads = params["heads"]
    total = jnp.zeros(())
    for i, (a, b) in enumerate(zip(features_a, features_b, strict=True)):
        total += jnp.mean(jnp.sum((a - b) ** 2 * heads[f"block_{i}"], -1), (1, 2))
    return total
