"""The encoder: from an image to N latents whose order has no meaning."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pivq_jax.config.sections import ModelConfig
from pivq_jax.model.layers import Block, positions_2d
from pivq_jax.model.primitives import NORM_EPSILON, LayerNorm, dense


class Encoder(nn.Module):
    """Vision transformer over image patches with fixed 2-D position embeddings.

    The latents come from learned queries, which attend to the patches and to each other, as in
    TiTok's encoder (Yu et al. 2024, arXiv 2406.07550). Each is normalized to zero mean and unit
    variance, which fixes the scale of the codebook.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Encodes images float32 [B, H, W, 3] in [-1, 1]; H and W are multiples of `patch_size`.

        Returns latents float32 [B, N, D], each with zero mean and unit variance.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        p = config.patch_size
        x = nn.Conv(
            config.width, (p, p), strides=(p, p), padding="VALID", dtype=dtype, name="patches"
        )(images)
        batch, height, width, _ = x.shape
        x = x.reshape(batch, height * width, config.width)
        x = x + positions_2d(height, width, config.width).astype(dtype)

        shape = (config.num_codes, config.width)
        queries = self.param("queries", nn.initializers.normal(1.0), shape)
        queries = jnp.broadcast_to(queries.astype(dtype), (batch, *shape))
        x = jnp.concatenate([x, queries], axis=1)
        block = nn.remat(Block) if config.remat else Block
        for i in range(config.encoder_depth):
            # The patches are not needed after the last block.
            last = config.num_codes if i == config.encoder_depth - 1 else None
            x = block(config.heads, config.mlp_ratio, dtype, last, name=f"block_{i}")(x)
        latents = dense(config.code_dim, jnp.float32, "latents")(LayerNorm(dtype, name="norm")(x))
        unit = nn.LayerNorm(
            epsilon=NORM_EPSILON,
            use_bias=False,
            use_scale=False,
            use_fast_variance=False,
            dtype=jnp.float32,
            name="unit",
        )
        return unit(latents)
