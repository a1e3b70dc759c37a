"""The decoder: from a set of code vectors to an image, independent of their order."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pivq_jax.config.sections import ModelConfig
from pivq_jax.model.layers import Block, depth_to_space, positions_2d, space_to_depth
from pivq_jax.model.primitives import LayerNorm, dense, gelu


class Output(nn.Module):
    """Maps each grid cell to its patch of pixels: by one linear layer, or by two 3x3 convolutions.

    A linear layer leaves the patch grid visible. At full resolution, convolutions would cost more
    than all attention layers, so they run at half of it, and the last one outputs 2x2 pixels per
    position.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, grid: jax.Array, pattern: jax.Array | None = None) -> jax.Array:
        """Maps [B, h, w, width] to pixels, float32 [B, h * patch_size, w * patch_size, 3].

        The convolutions also get a `pattern` of that shape, to which the result will be added.
        """
        patch_size, channels = self.config.patch_size, self.config.output_channels
        if self.config.output == "patch":
            x = dense(3 * patch_size**2, jnp.float32, "pixels")(grid)
            return depth_to_space(x, patch_size)
        dtype, factor = jnp.dtype(self.config.dtype), patch_size // 2
        x = depth_to_space(dense(channels * factor**2, dtype, "expand")(grid), factor)
        if pattern is not None:
            x = jnp.concatenate([x, space_to_depth(pattern, 2).astype(dtype)], -1)
        x = x + nn.Conv(x.shape[-1], (3, 3), dtype=dtype, name="conv")(gelu(x))
        # Images begin as the pattern, if there is one.
        first = nn.initializers.lecun_normal() if pattern is None else nn.initializers.zeros
        x = nn.Conv(12, (3, 3), dtype=jnp.float32, kernel_init=first, name="pixels")(gelu(x))
        return depth_to_space(x, 2)


class LocalOutput(nn.Module):
    """Maps each grid cell to its patch of pixels by a linear layer of its own.

    One layer for all patches has too few directions for all of their shapes (Taigman et al. 2014,
    DeepFace). The kernels begin at zero, as this learns faster than from random ones.
    """

    patch_size: int

    @nn.compact
    def __call__(self, grid: jax.Array) -> jax.Array:
        """Maps cells as `Output` does."""
        _, height, width, channels = grid.shape
        shape = (height * width, channels, 3 * self.patch_size**2)
        # Not named `kernel`: Muon would orthogonalize each of them, at several times its cost.
        kernels = self.param("kernels", nn.initializers.zeros, shape)
        cells = grid.astype(jnp.float32).reshape(-1, height * width, channels)
        x = jnp.einsum("btc,tcp->btp", cells, kernels)
        return depth_to_space(x.reshape(-1, height, width, shape[-1]), self.patch_size)


class Decoder(nn.Module):
    """Transformer from a set of code vectors to an image.

    Codes have no position, except for `positional`, and pass through self-attention, which is
    permutation equivariant. A grid of queries, one per patch, then alternates self-attention with
    cross-attention to the set, which is permutation invariant.
    """

    config: ModelConfig
    image_size: int
    positional: bool = False

    @nn.compact
    def __call__(self, quantized: jax.Array, pattern: jax.Array | None = None) -> jax.Array:
        """Decodes code vectors float32 [B, N, D] to images float32 [B, H, W, 3] with H = W =
        `image_size`, nominally in [-1, 1], not clipped.

        With a `pattern` of that shape, the grid begins as its patches instead of learned queries,
        and the network learns what to add to it.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        batch, num_codes, _ = quantized.shape
        side = self.image_size // config.patch_size
        block = nn.remat(Block) if config.remat else Block
        codes = dense(config.width, dtype, "codes")(quantized)
        if self.positional:
            shape = (num_codes, config.width)
            codes += self.param("places", nn.initializers.normal(1.0), shape).astype(dtype)
        for i in range(config.set_depth):
            codes = block(config.heads, config.mlp_ratio, dtype, name=f"set_block_{i}")(codes)
        codes = LayerNorm(dtype, name="set_norm")(codes)

        if pattern is None:
            queries = self.param("queries", nn.initializers.normal(0.02), (side**2, config.width))
            x = queries[None]  # shared by all images until they see the codes
        else:
            patches = space_to_depth(pattern, config.patch_size).reshape(batch, side**2, -1)
            x = dense(config.width, dtype, "patches")(patches)
        x = (x + positions_2d(side, side, config.width)).astype(dtype)
        for i in range(config.decoder_depth):
            x = block(config.heads, config.mlp_ratio, dtype, name=f"block_{i}")(x, codes)
        x = LayerNorm(dtype, name="norm")(x).reshape(batch, side, side, config.width)

        images = Output(config, name="output")(x, pattern)
        if pattern is not None:
            images += pattern
        if config.local_output:
            images += LocalOutput(config.patch_size, name="local_output")(x)
        return images
