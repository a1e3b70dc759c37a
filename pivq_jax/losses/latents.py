"""Losses of latents: on those that are the same for all images, and on those that repeat others."""

import jax
import jax.numpy as jnp

# Latents have unit variance over their D components, so the largest possible value is 1. With a
# higher target, queries stay apart that would otherwise agree, and samples get worse.
DEVIATION = 0.25
EPSILON = 1e-6  # keeps the gradient finite where all images have the same latent
FLOOR = 1.0  # sum of squared covariances; of latents of unit variance in M directions it is M


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


def redundancy_loss(latents: jax.Array, patches: int) -> jax.Array:
    """Penalizes latents of one patch that say the same.

    Source: the RV coefficient of Escoufier 1973, Biometrics 29, which is 1 for two vectors of which
    one is a rotation of the other, up to a factor, and 0 for two without covariance; VICReg's
    covariance term (Bardes et al. 2022, arXiv 2105.04906, equation 4) is similar, but gets smaller
    with the variance of latents too.

    Noise on latents is different for each of them, so that an encoder makes several latents of a
    patch copies of one: the decoder then averages the noise. But the error of quantization is the
    same for each copy, and all but one of these codes say nothing.

    Args:
        latents: f32 [B, N, D], N / `patches` of them from one patch after another, N at least
            2 * `patches`.
        patches: number of patches of an image; covariances are means over all of them, after the
            mean over the batch is subtracted for each.

    Returns:
        f32 [], in [0, 1], the mean RV coefficient of two latents of a patch. Latents that vary
        little, as in the first steps, count less (`FLOOR`).
    """
    batch, count, size = latents.shape
    each = count // patches
    deviations = latents.astype(jnp.float32) - jnp.mean(latents, 0, dtype=jnp.float32)
    rows = deviations.reshape(batch * patches, each * size)
    covariance = jnp.einsum("ri,rj->ij", rows, rows, precision=jax.lax.Precision.HIGHEST)
    blocks = (covariance / len(rows)).reshape(each, size, each, size)
    together = jnp.sum(blocks**2, (1, 3))  # [each, each]
    alone = jnp.sqrt(jnp.diag(together) + EPSILON)
    shared = together / (alone[:, None] * alone + FLOOR)
    return jnp.sum(shared * (1 - jnp.eye(each))) / (each * (each - 1))
