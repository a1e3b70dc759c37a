"""Variance and covariance terms of VICReg (Bardes et al. 2022, arXiv 2105.04906) on latents.

The first keeps every latent informative, the second keeps latents from repeating each other.
"""

import jax
import jax.numpy as jnp

# Latents have unit variance over their D components, so the largest possible value is 1. With a
# higher target, queries stay apart that would otherwise agree, and samples get worse.
DEVIATION = 0.25
EPSILON = 1e-6  # keeps the gradient finite where all images have the same latent


def variance_loss(latents: jax.Array) -> jax.Array:
    """Penalizes queries whose latents hardly differ between images.

    Source: Bardes et al. 2022, arXiv 2105.04906, equation 1.

    Without this term, half of the learned queries soon produce nearly the same latent for all
    images. Relative to the codebook entries these latents coincide, so they are quantized to one
    code that occurs in every image and carries no information, and the commitment loss then keeps
    them there.

    Args:
        latents: f32 [B, N, D], in query order.

    Returns:
        f32 [], the mean over queries of `relu(DEVIATION - deviation)`, where the deviation of a
        query is its standard deviation over the batch (root mean square over D).
    """
    variance = jnp.mean(jnp.var(latents.astype(jnp.float32), axis=0), axis=-1)
    return jnp.mean(jax.nn.relu(DEVIATION - jnp.sqrt(variance + EPSILON)))


def covariance_loss(latents: jax.Array, patches: int) -> jax.Array:
    """Penalizes what the latents of one patch say together.

    Source: Bardes et al. 2022, arXiv 2105.04906, equations 3 and 4, between latents instead of
    within one.

    Noise on latents is different for each of them, so that an encoder makes several latents of a
    patch copies of one: the decoder then averages the noise. Quantization makes the same error for
    each copy, and the copies say nothing. Without covariance, what one latent says is new.

    Args:
        latents: f32 [B, N, D], N / `patches` of them from one patch after another, N at least
            2 * `patches`.
        patches: number of patches of an image; what their latents say is compared over all of
            them, after the mean over the batch is subtracted for each.

    Returns:
        f32 [], the sum of the squared covariances of the components of two latents of a patch,
        divided by D, as a mean over pairs of latents. Of copies with unit variance in M of D
        directions it is M / D.
    """
    batch, count, size = latents.shape
    each = count // patches
    deviations = latents.astype(jnp.float32) - jnp.mean(latents, 0, dtype=jnp.float32)
    rows = deviations.reshape(batch * patches, each * size)
    covariance = jnp.einsum("ri,rj->ij", rows, rows, precision=jax.lax.Precision.HIGHEST)
    blocks = (covariance / len(rows)).reshape(each, size, each, size)
    energy = jnp.sum(blocks**2, (1, 3))  # [each, each]
    return jnp.sum(energy * (1 - jnp.eye(each))) / (each * (each - 1) * size)
