"""The patch discriminator for adversarial training."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from pivq_jax.config.sections import NORM_GROUPS
from pivq_jax.model.primitives import NORM_EPSILON


class Discriminator(nn.Module):
    """PatchGAN (Isola et al. 2017, arXiv 1611.07004): a logit for each overlapping patch.

    4x4 convolutions of stride 2 with leaky ReLU; with three of them, a logit sees a patch of 70
    pixels. Group norm replaces the original's batch norm, which would couple the images of a batch
    (across all devices) and add state to the model.
    """

    channels: int  # of the first layer; doubled by each later layer, up to 8 times as many
    layers: int  # number of convolutions of stride 2
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images float32 [B, H, W, 3] in [-1, 1] to logits of patches, float32 [B, h, w].

        They are high for patches that look real.
        """
        draw = nn.initializers.normal(0.02)
        conv = partial(nn.Conv, kernel_size=(4, 4), padding=1, dtype=self.dtype, kernel_init=draw)
        norm = partial(
            nn.GroupNorm,
            NORM_GROUPS,
            epsilon=NORM_EPSILON,
            use_fast_variance=False,
            dtype=self.dtype,
        )
        x = nn.leaky_relu(conv(self.channels, strides=2, name="conv_0")(images), 0.2)
        for i in range(1, self.layers + 1):
            features, stride = self.channels * min(2**i, 8), 2 if i < self.layers else 1
            x = conv(features, strides=stride, use_bias=False, name=f"conv_{i}")(x)
            x = nn.leaky_relu(norm(name=f"norm_{i}")(x), 0.2)
        return conv(1, strides=1, name="logits")(x)[..., 0].astype(jnp.float32)
