"""The discriminator: shapes, what a logit sees, and no coupling of the images of a batch."""

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.model.discriminator import Discriminator


def test_logits_judge_patches_of_34_pixels_each_image_alone():
    network = Discriminator(channels=8, layers=2)
    images = jax.random.normal(jax.random.key(0), (3, 64, 64, 3))
    params = jax.jit(network.init)(jax.random.key(1), images)["params"]
    apply = jax.jit(network.apply)
    logits = apply({"params": params}, images)
    assert logits.shape == (3, 14, 14) and logits.dtype == jnp.float32
    alone = apply({"params": params}, images[1:2])
    np.testing.assert_allclose(logits[1:2], alone, atol=1e-5)

    # A logit looks at its 34 pixels; through the norms it sees the rest of the image a little.
    def one(image):
        return network.apply({"params": params}, image[None])[0, 7, 7]

    energy = np.square(jax.jit(jax.grad(one))(images[0])).sum(-1)
    first = 4 * 7 - 15 + 2  # a logit is four pixels on; each convolution is padded by one
    inside = energy[first : first + 34, first : first + 34].sum() / energy.sum()
    assert inside > 0.9


def test_bfloat16_gives_float32_logits():
    network = Discriminator(channels=8, layers=2, dtype=jnp.bfloat16)
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    params = jax.jit(network.init)(jax.random.key(1), images)["params"]
    logits = jax.jit(network.apply)({"params": params}, images)
    full = jax.jit(Discriminator(channels=8, layers=2).apply)({"params": params}, images)
    assert logits.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    np.testing.assert_allclose(logits, full, atol=0.05)
