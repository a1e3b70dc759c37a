"""Adversarial losses: hinge losses, and what the discriminator sees of an image."""

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


def views(images: jax.Array, key: jax.Array) -> jax.Array:
    """A quarter of the pixels of images f32 [B, H, W, 3]: f32 [B, H / 2, W / 2, 3].

    Of images of even number, a crop at a random place, which shows the texture; of the others, the
    whole image at half the resolution, which shows whether its parts belong together. H and W are
    even. Equal keys give the same views of different images.
    """
    batch, height, width, channels = images.shape
    size = (height // 2, width // 2)

    def crop(image: jax.Array, key: jax.Array) -> jax.Array:
        row, column = jax.random.randint(key, (2,), 0, jnp.array(size) + 1)
        return jax.lax.dynamic_slice(image, (row, column, 0), (*size, channels))

    crops = jax.vmap(crop)(images, jax.random.split(key, batch))
    halved = images.reshape(batch, size[0], 2, size[1], 2, channels).mean((2, 4))
    return jnp.where(jnp.arange(batch)[:, None, None, None] % 2 == 0, crops, halved)
