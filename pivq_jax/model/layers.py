"""Layers shared by the encoder and the decoder: attention, MLP, transformer block and positions.

All modules compute in `dtype` and keep their parameters in float32. Norms use epsilon 1e-6 and are
computed in float32 for every `dtype`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.model.primitives import LayerNorm, dense, gelu


def positions_2d(height: int, width: int, channels: int) -> np.ndarray:
    """Computes fixed sine and cosine position embeddings, float32 [height * width, channels].

    Half of the channels encode the row, half the column (Vaswani et al. 2017, arXiv 1706.03762).
    """
    omega = 1.0 / 10_000 ** (np.arange(channels // 4) / (channels // 4))
    cells = np.indices((height, width)).reshape(2, -1, 1)  # rows and columns
    angles = np.concatenate(cells * omega, axis=1)  # [height * width, channels / 2]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def space_to_depth(images: jax.Array, factor: int) -> jax.Array:
    """Moves pixels to channels: [B, h * factor, w * factor, C] to [B, h, w, factor^2 * C]."""
    batch, height, width, channels = images.shape
    x = images.reshape(batch, height // factor, factor, width // factor, factor, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // factor, width // factor, -1)


def depth_to_space(x: jax.Array, factor: int) -> jax.Array:
    """Moves channels to pixels, the inverse of `space_to_depth`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, factor, factor, channels // factor**2)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height * factor, width * factor, -1)


class Attention(nn.Module):
    """Multi-head dot-product attention, to the input itself or to a context.

    Queries and keys are normalized per head (Dehghani et al. 2023, arXiv 2302.05442), which bounds
    the logits at the high learning rates of short runs.
    """

    heads: int
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Attends from x [B, T, W], or [1, T, W] for all images, to the context [B, S, W] or x."""
        context = x if context is None else context
        width = x.shape[-1]
        query, key, value = (
            dense(width, self.dtype, name)(y).reshape(*y.shape[:2], self.heads, -1)
            for name, y in (("query", x), ("key", context), ("value", context))
        )
        query = LayerNorm(self.dtype, name="query_norm")(query)
        key = LayerNorm(self.dtype, name="key_norm")(key)
        query = jnp.broadcast_to(query, (key.shape[0], *query.shape[1:]))
        y = jax.nn.dot_product_attention(query, key, value)
        return dense(width, self.dtype, "out")(y.reshape(*y.shape[:2], width))


class Mlp(nn.Module):
    """Two dense layers with GELU (tanh form) between them; the hidden width is `ratio` * W."""

    ratio: int = 4
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layers to x [..., W]; returns [..., W] of dtype `dtype`."""
        width = x.shape[-1]
        x = dense(self.ratio * width, self.dtype, "hidden")(x)
        return dense(width, self.dtype, "out")(gelu(x))


class Block(nn.Module):
    """Pre-norm transformer block: self-attention, cross-attention if there is a context, MLP."""

    heads: int
    mlp_ratio: int = 4
    dtype: jax.typing.DTypeLike = jnp.float32
    # If set, only the last `last` tokens are updated and returned.
    last: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Maps x [B, T, W] to [B, T or `last`, W]; with a context, x may be [1, T, W] for all."""
        y = LayerNorm(self.dtype, name="self_attention_norm")(x)
        kept = slice(-self.last if self.last else None, None)
        attention = Attention(self.heads, self.dtype, name="self_attention")
        x = x[:, kept] + attention(y[:, kept], y)
        if context is not None:
            y = LayerNorm(self.dtype, name="cross_attention_norm")(x)
            x = x + Attention(self.heads, self.dtype, name="cross_attention")(y, context)
        y = LayerNorm(self.dtype, name="mlp_norm")(x)
        return x + Mlp(self.mlp_ratio, self.dtype, name="mlp")(y)
