"""The encoder: from an image to N latents whose order has no meaning."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from pivq_jax.config.sections import ModelConfig
from pivq_jax.model.layers import Block, positions_2d, to_waves
from pivq_jax.model.primitives import NORM_EPSILON, LayerNorm, dense


class Encoder(nn.Module):
    """Vision transformer over image patches with fixed 2-D position embeddings.

    The latents come from learned queries, which attend to the patches and to each other, as in
    TiTok's encoder (Yu et al. 2024, arXiv 2406.07550), or from the patches themselves. Each is
    normalized to zero mean and unit variance, which fixes the scale of the codebook. With several
    stages it is the cosine transform of its patch instead, to which the network adds.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Encodes images float32 [B, H, W, 3] in [-1, 1]; H and W are multiples of `patch_size`.

        Returns latents float32 [B, N / stages, `latent_dim`], with one stage each with zero mean
        and unit variance.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        p = config.patch_size
        x = nn.Conv(
            config.width, (p, p), strides=(p, p), padding="VALID", dtype=dtype, name="patches"
        )(images)
        batch, height, width, _ = x.shape
        x = x.reshape(batch, height * width, config.width)
        x = x + positions_2d(height, width, config.width).astype(dtype)

        from_queries = config.latents == "queries"
        if from_queries:
            shape = (config.num_latents, config.width)
            queries = self.param("queries", nn.initializers.normal(1.0), shape)
            queries = jnp.broadcast_to(queries.astype(dtype), (batch, *shape))
            x = jnp.concatenate([x, queries], axis=1)
        block = nn.remat(Block) if config.remat else Block
        for i in range(config.encoder_depth):
            # The patches are not needed after the last block, unless they are the latents.
            is_last = i == config.encoder_depth - 1
            last = config.num_latents if from_queries and is_last else None
            x = block(config.heads, config.mlp_ratio, dtype, last, name=f"block_{i}")(x)
        if not from_queries and config.num_latents < height * width:
            side = math.isqrt(height * width // config.num_latents)  # of the blocks averaged
            blocks = x.reshape(batch, height // side, side, width // side, side, config.width)
            x = blocks.mean((2, 4)).reshape(batch, config.num_latents, config.width)

        x = LayerNorm(dtype, name="norm")(x)
        if config.stages > 1:
            added = dense(config.latent_dim, jnp.float32, "latents", nn.initializers.zeros)
            return to_waves(images, p, config.latent_dim) + added(x)

        per_token = config.num_latents // x.shape[1]
        latents = dense(config.latent_dim * per_token, jnp.float32, "latents")(x)
        latents = latents.reshape(batch, config.num_latents, config.latent_dim)
        unit = nn.LayerNorm(
            epsilon=NORM_EPSILON,
            use_bias=False,
            use_scale=False,
            use_fast_variance=False,
            dtype=jnp.float32,
            name="unit",
        )
        return unit(latents)
