"""The encoder: from an image to N latents whose order has no meaning."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pivq_jax.model.layers import block_class, positions_2d
from pivq_jax.model.primitives import NORM_EPSILON, LayerNorm, dense


class Encoder(nn.Module):
    """Vision transformer over image patches and N learned latent queries.

    Patches have fixed 2-D position embeddings. Queries attend to the patches and to each other in
    every block, as in TiTok's encoder (Yu et al. 2024, arXiv 2406.07550). Each latent is normalized
    to zero mean and unit variance, without a learned scale, which fixes the scale of the codebook.
    """

    num_codes: int  # N
    code_dim: int  # D
    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_ratio: int = 4
    dtype: jnp.dtype = jnp.float32
    remat: bool = False  # recompute activations within blocks in the backward pass

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Encodes images.

        Args:
            images: float32 [B, H, W, 3] in [-1, 1]; H and W are multiples of `patch_size`.

        Returns:
            float32 [B, N, D], latents, each with zero mean and unit variance.
        """
        p = self.patch_size
        x = nn.Conv(
            self.width, (p, p), strides=(p, p), padding="VALID", dtype=self.dtype, name="patches"
        )(images)
        batch, height, width, _ = x.shape
        x = x.reshape(batch, height * width, self.width)
        x = x + positions_2d(height, width, self.width).astype(self.dtype)

        queries = self.param("queries", nn.initializers.normal(1.0), (self.num_codes, self.width))
        queries = jnp.broadcast_to(queries.astype(self.dtype), (batch, *queries.shape))
        x = jnp.concatenate([x, queries], axis=1)
        block = block_class(self.remat)
        for i in range(self.depth):
            # The patches are not needed after the last block.
            last = self.num_codes if i == self.depth - 1 else None
            x = block(self.heads, self.mlp_ratio, self.dtype, last, name=f"block_{i}")(x)

        latents = LayerNorm(self.dtype, name="norm")(x)
        latents = dense(self.code_dim, jnp.float32, "latents")(latents)
        unit = nn.LayerNorm(
            epsilon=NORM_EPSILON,
            use_bias=False,
            use_scale=False,
            use_fast_variance=False,
            dtype=jnp.float32,
            name="unit",
        )
        return unit(latents)
