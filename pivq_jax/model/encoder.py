"""The encoder: from an image to N latents whose order has no meaning."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from pivq_jax.model.layers import block_class, positions_2d
from pivq_jax.model.primitives import NORM_EPSILON, LayerNorm, dense

LATENTS = ("queries", "patches")


def pool(grid: jax.Array, count: int) -> jax.Array:
    """Averages square blocks of a grid [B, h, w, C] to [B, count, C], row by row.

    Here, h * w / count is the square of a divisor of h and w.
    """
    batch, height, width, channels = grid.shape
    side = math.isqrt(height * width // count)
    blocks = grid.reshape(batch, height // side, side, width // side, side, channels)
    return blocks.mean((2, 4)).reshape(batch, count, channels)


class Encoder(nn.Module):
    """Vision transformer over image patches.

    Patches have fixed 2-D position embeddings. The N latents are computed from (`latents`):

    - `queries`: N learned queries, which attend to the patches and to each other in every block, as
      in TiTok's encoder (Yu et al. 2024, arXiv 2406.07550).
    - `patches`: the patches themselves, averaged over square blocks if N is smaller than their
      number; if N is a multiple of it, several latents are computed from each patch.

    Each latent is normalized to zero mean and unit variance, without a learned scale, which fixes
    the scale of the codebook.
    """

    num_codes: int  # N
    code_dim: int  # D
    patch_size: int
    width: int
    depth: int
    heads: int
    latents: str = "queries"  # one of `LATENTS`
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

        if self.latents == "queries":
            shape = (self.num_codes, self.width)
            queries = self.param("queries", nn.initializers.normal(1.0), shape)
            queries = jnp.broadcast_to(queries.astype(self.dtype), (batch, *shape))
            x = jnp.concatenate([x, queries], axis=1)
        block = block_class(self.remat)
        for i in range(self.depth):
            # The patches are not needed after the last block, unless they are the latents.
            last = self.num_codes if self.latents == "queries" and i == self.depth - 1 else None
            x = block(self.heads, self.mlp_ratio, self.dtype, last, name=f"block_{i}")(x)
        if self.latents == "patches" and self.num_codes < height * width:
            x = pool(x.reshape(batch, height, width, self.width), self.num_codes)

        latents = LayerNorm(self.dtype, name="norm")(x)
        per_token = self.num_codes // x.shape[1]
        latents = dense(self.code_dim * per_token, jnp.float32, "latents")(latents)
        latents = latents.reshape(batch, self.num_codes, self.code_dim)
        unit = nn.LayerNorm(
            epsilon=NORM_EPSILON,
            use_bias=False,
            use_scale=False,
            use_fast_variance=False,
            dtype=jnp.float32,
            name="unit",
        )
        return unit(latents)
