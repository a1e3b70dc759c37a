"""What keeps every latent saying something: the variance term of VICReg."""

import jax
import jax.numpy as jnp

# Latents have unit variance over their D numbers, so that 1 is the most there can be. Asking for
# more than this keeps queries apart that would say the same, and samples get worse.
DEVIATION = 0.25
EPSILON = 1e-6  # keeps the gradient finite where all images have the same latent


def variance_loss(latents: jax.Array) -> jax.Array:
    """How far each query's latents are from differing between images (Bardes et al. 2022,
    arXiv 2105.04906, equation 1).

    Left alone, half of the learned queries soon give all images nearly the same latent. Beside the
    others' entries all of these lie in one place, so quantized they become one code that is in
    every image and says nothing, and commitment then keeps them there.

    Args:
        latents: f32 [B, N, D], in query order.

    Returns:
        f32 []: mean over the queries of what a query's standard deviation over the batch (root mean
        square over D) lacks of `DEVIATION`.
    """
    variance = jnp.mean(jnp.var(latents.astype(jnp.float32), axis=0), axis=-1)
    return jnp.mean(jax.nn.relu(DEVIATION - jnp.sqrt(variance + EPSILON)))
