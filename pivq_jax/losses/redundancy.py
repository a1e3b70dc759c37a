"""Redundancy between queries: how much of one latent follows from another one."""

import jax
import jax.numpy as jnp

LEAST_BATCH = 4  # the unbiased estimate divides by B - 3
EPSILON = 1e-6  # keeps the gradient small where all images have nearly the same latent


def redundancy_loss(latents: jax.Array) -> jax.Array:
    """Penalizes queries whose latents tell the same about an image.

    The similarity of two queries is their centred kernel alignment (CKA) with linear kernels: 1 if
    the latents of one are a rotation of those of the other, 0 if no component of one correlates
    with one of the other. Without this term, several queries repeat an attribute that shows in many
    places, such as the colour of the hair, while one query tells three others at once, which the
    codebook then has too few entries for.

    Sources: CKA, Kornblith et al. 2019, arXiv 1905.00414; for batches, Nguyen et al. 2021, arXiv
    2010.15327, with the unbiased estimate of Song et al. 2012, as the biased one is far from 0 for
    independent latents of few images.

    Args:
        latents: f32 [B, N, D], in query order; B of at least `LEAST_BATCH`, N of at least 2.

    Returns:
        f32 [], the mean over all pairs of queries; below 0 by chance, if they are independent.
    """
    latents = latents.astype(jnp.float32)
    latents -= latents.mean(0)  # changes no result, but large means would cost precision
    batch, queries, _ = latents.shape
    between_images = 1.0 - jnp.eye(batch)
    grams = jnp.einsum("bnd,cnd->nbc", latents, latents) * between_images
    rows = grams.sum(-1, keepdims=True) / (batch - 2)
    means = grams.sum((1, 2), keepdims=True) / ((batch - 1) * (batch - 2))
    grams = (grams - rows - rows.swapaxes(1, 2) + means) * between_images
    grams = grams / jnp.sqrt(jnp.sum(grams**2, (1, 2), keepdims=True) + EPSILON)
    # The sum over all pairs is the square of the sum, less that of each query with itself.
    pairs = jnp.sum(grams.sum(0) ** 2) - jnp.sum(grams**2)
    return pairs / (queries * (queries - 1))
