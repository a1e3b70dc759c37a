"""LPIPS: a perceptual distance between images (Zhang et al. 2018, arXiv 1801.03924), version 0.1.

Two images are compared by the features of a network trained to classify, which sees edges, texture
and parts where a pixel loss sees each pixel alone. At five depths the features are scaled to unit
length at each place, their squared differences weighted by channel (the "heads", which the authors
fitted to human judgement), averaged over the image and summed.

    params = load_lpips("alex")                      # once; see perceptual_weights
    loss = lpips(params, images, targets, "alex")    # params go through jit as an argument
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from pivq_jax.losses.backbones import check_image_size, get_backbone

# Mean and deviation of ImageNet's pixels, for images in [-1, 1].
_MEAN = (-0.030, -0.088, -0.188)
_DEVIATION = (0.458, 0.448, 0.450)

# Keeps the gradient finite where all channels are zero; features that matter are far above it.
_EPSILON = 1e-10


def normalize_images(images: jax.Array) -> jax.Array:
    """Images [..., 3] in [-1, 1] -> f32, scaled as the backbones' training images were."""
    return (images.astype(jnp.float32) - jnp.asarray(_MEAN)) / jnp.asarray(_DEVIATION)


def lpips(
    params: Mapping[str, Any],
    images_a: jax.Array,
    images_b: jax.Array,
    network: str = "alex",
    precision: str | None = "highest",
) -> jax.Array:
    """The distance of each pair of images; of equal ones it and its gradient are 0 up to rounding.

    Args:
        params: as `load_lpips(network)` gives them.
        images_a: [B, H, W, 3] in [-1, 1], any float type; computed in float32. H and W are at least
            31 (`alex`) or 16 (`vgg`).
        images_b: the same.
        network: `alex` (light, and nearest to human judgement) or `vgg` (smoother gradients, about
            25 times the work).
        precision: of the convolutions. The default is float32 on every device; None lets a GPU or
            TPU use its faster formats.

    Returns:
        f32 [B].

    Raises:
        InputError: an unknown network, or images too small for it.
    """
    a, b = (lpips_features(params, x, network, precision) for x in (images_a, images_b))
    return lpips_distance(params, a, b)


def lpips_features(
    params: Mapping[str, Any],
    images: jax.Array,
    network: str = "alex",
    precision: str | None = "highest",
) -> list[jax.Array]:
    """What `lpips_distance` compares: for a target that several images are compared with.

    Arguments as in `lpips`. Returns five f32 [B, h, w, C] of unit length along C.
    """
    check_image_size(network, images.shape[1], images.shape[2])
    backbone = get_backbone(network)(precision=precision)
    features: Any = backbone.apply({"params": params["backbone"]}, normalize_images(images))
    return [x * jax.lax.rsqrt(jnp.sum(x**2, -1, keepdims=True) + _EPSILON) for x in features]


def lpips_distance(
    params: Mapping[str, Any], features_a: Sequence[jax.Array], features_b: Sequence[jax.Array]
) -> jax.Array:
    """f32 [B] from two results of `lpips_features`."""
    heads = params["heads"]
    total = jnp.zeros(())
    for i, (a, b) in enumerate(zip(features_a, features_b, strict=True)):
        total += jnp.mean(jnp.sum((a - b) ** 2 * heads[f"block_{i}"], -1), (1, 2))
    return total
