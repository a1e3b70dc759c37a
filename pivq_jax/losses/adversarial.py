"""Adversarial losses: hinge losses, the adaptive weight, and differentiable augmentation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def discriminator_hinge(real: jax.Array, fake: jax.Array) -> jax.Array:
    """Hinge loss of the discriminator, f32 [], of logits f32 of any shape.

    Zero if every real logit is above 1 and every fake one below -1 (Lim and Ye 2017, arXiv
    1705.02894).
    """
    return 0.5 * (jnp.mean(jax.nn.relu(1.0 - real)) + jnp.mean(jax.nn.relu(1.0 + fake)))


def generator_hinge(fake: jax.Array) -> jax.Array:
    """Hinge loss of the generator, f32 []: the negative mean of its images' logits, f32."""
    return -jnp.mean(fake)


def adaptive_weight(
    reconstruction: jax.Array, adversarial: jax.Array, max_weight: float
) -> jax.Array:
    """Weight f32 [] that gives the adversarial gradient the norm of the reconstruction gradient.

    Both are those of the kernel of the decoder's last layer. The weight is the clipped ratio of
    their norms (VQ-GAN: Esser et al. 2021, arXiv 2012.09841, equation 7), without a gradient.
    """
    ratio = jnp.linalg.norm(reconstruction.ravel()) / (jnp.linalg.norm(adversarial.ravel()) + 1e-4)
    return jax.lax.stop_gradient(jnp.clip(ratio, 0.0, max_weight))


# Differentiable augmentation (Zhao et al. 2020, arXiv 2006.10738). Each function takes images
# f32 [B, H, W, 3] in [-1, 1] and a key, and draws parameters for each image.


def _augment_colour(images: jax.Array, key: jax.Array) -> jax.Array:
    """Changes the brightness, then the saturation, then the contrast."""
    draws = jax.random.uniform(key, (3, len(images)))
    brightness, saturation, contrast = draws[..., None, None, None]
    images = images + (brightness - 0.5)
    grey = jnp.mean(images, axis=-1, keepdims=True)
    images = (images - grey) * (2.0 * saturation) + grey
    mean = jnp.mean(images, axis=(1, 2, 3), keepdims=True)
    return (images - mean) * (contrast + 0.5) + mean


def _augment_translation(images: jax.Array, key: jax.Array) -> jax.Array:
    """Moves each image by up to an eighth of its size in both directions; the rest is zero."""
    limit = jnp.array(images.shape[1:3]) // 8
    offsets = jax.random.randint(key, (len(images), 2), -limit, limit + 1)  # down and right

    def move(image: jax.Array, offset: jax.Array) -> jax.Array:
        height, width, _ = image.shape
        padded = jnp.pad(image, ((height, height), (width, width), (0, 0)))
        start = (height - offset[0], width - offset[1], 0)
        return jax.lax.dynamic_slice(padded, start, image.shape)

    return jax.vmap(move)(images, offsets)


def _augment_cutout(images: jax.Array, key: jax.Array) -> jax.Array:
    """Sets a square of half the height and width to zero; its centre is anywhere in the image."""
    limit = jnp.array(images.shape[1:3])
    centres = jax.random.randint(key, (len(images), 2), 0, limit + 1)

    def inside(side: int, centre: jax.Array) -> jax.Array:
        first = centre[:, None] - side // 4
        position = jnp.arange(side)
        return (position >= first) & (position < first + side // 2)  # [B, side]

    rows = inside(images.shape[1], centres[:, 0])[:, :, None, None]
    columns = inside(images.shape[2], centres[:, 1])[:, None, :, None]
    return jnp.where(rows & columns, 0.0, images)


AUGMENTATIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "colour": _augment_colour,
    "translation": _augment_translation,
    "cutout": _augment_cutout,
}


def augment(images: jax.Array, key: jax.Array, policy: tuple[str, ...]) -> jax.Array:
    """Applies random augmentations to images f32 [B, H, W, 3] in [-1, 1], drawn for each image.

    The policy, which may be empty, has names of `AUGMENTATIONS` in the order of their application.
    """
    for name, key_draw in zip(policy, jax.random.split(key, len(policy)), strict=True):
        images = AUGMENTATIONS[name](images, key_draw)
    return images
