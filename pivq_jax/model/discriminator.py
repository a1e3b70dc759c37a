"""The discriminator for adversarial training."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from pivq_jax.model.primitives import NORM_EPSILON


class Discriminator(nn.Module):
    """Small heads on pixels and on the feature maps of a frozen network, with logits of their own.

    A discriminator that starts from features of photographs learns within hundreds of steps what
    one that starts from pixels needs tens of thousands for (Projected GAN: Sauer et al. 2021, arXiv
    2111.01007). Features alone can be pleased by noise that an eye sees at once, so pixels have a
    head too. Fine maps are reduced to a quarter of their size, as their logits are many.
    """

    channels: int = 64  # of each head

    @nn.compact
    def __call__(self, seen: Sequence[jax.Array]) -> jax.Array:
        """Maps images f32 [B, H, W, 3] and their feature maps f32 [B, h, w, C] to logits f32
        [B, L]: high where images look real.
        """
        x, *features = seen
        for i in range(2):
            x = nn.leaky_relu(nn.Conv(self.channels, (4, 4), 2, name=f"pixels_{i}")(x), 0.2)
        logits = [nn.Conv(1, (1, 1), name="logits_pixels")(x).reshape(len(x), -1)]
        for i, x in enumerate(features):
            x = x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + NORM_EPSILON)
            x = nn.leaky_relu(nn.Conv(self.channels, (1, 1), name=f"project_{i}")(x), 0.2)
            size, stride = (4, 4) if i < 2 else (3, 2 if i == 2 else 1)
            conv = partial(nn.Conv, self.channels, (size, size), stride, name=f"conv_{i}")
            x = nn.leaky_relu(conv()(x), 0.2)
            logits.append(nn.Conv(1, (1, 1), name=f"logits_{i}")(x).reshape(len(x), -1))
        return jnp.concatenate(logits, -1)
