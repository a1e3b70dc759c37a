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
    """Weight that scales the adversarial gradient to the norm of the reconstruction gradient.

    The rule of VQ-GAN (Esser et al. 2021, arXiv 2012.09841, equation 7): the ratio of the gradient
    norms at the last layer of the decoder, clipped.

    The arguments are the gradients of the reconstruction losses and of the generator's adversarial
    loss with respect to the kernel of that layer. The result, f32 [], has no gradient.
    """
    ratio = jnp.linalg.norm(reconstruction.ravel()) / (jnp.linalg.norm(adversarial.ravel()) + 1e-4)
    return jax.lax.stop_gradient(jnp.clip(ratio, 0.0, max_weight))


# Differentiable augmentation (Zhao et al. 2020, arXiv 2006.10738). Each function takes images
# f32 [B, H, W, 3] in [-1, 1] and one parameter per image.


def brightness(images: jax.Array, shift: jax.Array) -> jax.Array:
    """Adds a constant, shift f32 [B], to each image."""
    return images + shift[:, None, None, None]


def saturation(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Scales the difference of each pixel from its grey value by factor f32 [B]."""
    grey = jnp.mean(images, axis=-1, keepdims=True)
    return (images - grey) * factor[:, None, None, None] + grey


def contrast(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Scales the difference of each pixel from the mean of its image by factor f32 [B]."""
    mean = jnp.mean(images, axis=(1, 2, 3), keepdims=True)
    return (images - mean) * factor[:, None, None, None] + mean


def translation(images: jax.Array, offset: jax.Array) -> jax.Array:
    """Translates each image by offset int32 [B, 2], pixels down and right, and fills with zeros."""

    def move(image: jax.Array, offset: jax.Array) -> jax.Array:
        height, width, _ = image.shape
        padded = jnp.pad(image, ((height, height), (width, width), (0, 0)))
        start = (height - offset[0], width - offset[1], 0)
        return jax.lax.dynamic_slice(padded, start, image.shape)

    return jax.vmap(move)(images, offset)


def cutout(images: jax.Array, centre: jax.Array) -> jax.Array:
    """Sets a square of half the image's height and width to zero in each image.

    Its centre, int32 [B, 2], row and column, may lie outside the image.
    """

    def inside(size: int, centre: jax.Array) -> jax.Array:
        first = centre[:, None] - size // 4
        position = jnp.arange(size)
        return (position >= first) & (position < first + size // 2)  # [B, size]

    rows = inside(images.shape[1], centre[:, 0])[:, :, None, None]
    columns = inside(images.shape[2], centre[:, 1])[:, None, :, None]
    return jnp.where(rows & columns, 0.0, images)


def _augment_colour(images: jax.Array, key: jax.Array) -> jax.Array:
    shift, first, second = jax.random.uniform(key, (3, len(images)))
    return contrast(saturation(brightness(images, shift - 0.5), 2.0 * first), second + 0.5)


def _augment_translation(images: jax.Array, key: jax.Array) -> jax.Array:
    limit = jnp.array(images.shape[1:3]) // 8
    return translation(images, jax.random.randint(key, (len(images), 2), -limit, limit + 1))


def _augment_cutout(images: jax.Array, key: jax.Array) -> jax.Array:
    limit = jnp.array(images.shape[1:3])
    return cutout(images, jax.random.randint(key, (len(images), 2), 0, limit + 1))


AUGMENTATIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "colour": _augment_colour,
    "translation": _augment_translation,
    "cutout": _augment_cutout,
}


def augment(images: jax.Array, key: jax.Array, policy: tuple[str, ...]) -> jax.Array:
    """Applies random augmentations to images, with independent parameters for each image.

    They are f32 [B, H, W, 3] in [-1, 1], real or generated. The policy has names of
    `AUGMENTATIONS`, applied in this order (another one is a KeyError); it may be empty.
    """
    for name, key_draw in zip(policy, jax.random.split(key, len(policy)), strict=True):
        images = AUGMENTATIONS[name](images, key_draw)
    return images
