"""Convolutional parts of AlexNet and VGG16 as in torchvision, for perceptual features.

They consist of convolutions and pooling only, so any image size above a minimum is accepted. Each
network returns the five feature maps that LPIPS compares: outputs of a ReLU, from fine to coarse.
"""

import itertools
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from pivq_jax.common.errors import InputError


def max_pool(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Maximum of each window without padding; its gradient goes to the first of equal maxima.

    That of `nn.max_pool` is the same, but a select-and-scatter, which XLA refuses on a GPU if
    results are to be deterministic.
    """
    height, width = ((size - window) // stride * stride + 1 for size in x.shape[1:3])
    parts = (
        x[:, row : row + height : stride, column : column + width : stride]
        for row, column in itertools.product(range(window), repeat=2)
    )
    largest = next(parts)
    for one in parts:
        largest = jnp.where((one > largest) | jnp.isnan(one), one, largest)
    return largest


def _convolve(x: jax.Array, kernel: jax.Array, *arguments: Any, **options: Any) -> jax.Array:
    """A convolution of images that are filled up to the size of the kernel: smaller ones take XLA
    on a CPU up to 100 times as long. The barriers keep the compiler from merging filling and
    cutting with it.
    """
    missing = [max(k - size, 0) for k, size in zip(kernel.shape, x.shape[1:3])]
    if not any(missing):
        return jax.lax.conv_general_dilated(x, kernel, *arguments, **options)
    filled = jnp.pad(x, [(0, 0), *((0, fill) for fill in missing), (0, 0)])
    y = jax.lax.conv_general_dilated(
        jax.lax.optimization_barrier(filled), kernel, *arguments, **options
    )
    height, width = (size - fill for size, fill in zip(y.shape[1:3], missing))
    return jax.lax.optimization_barrier(y)[:, :height, :width]


# In float32 on every device.
_Conv = partial(nn.Conv, precision="highest", conv_general_dilated=_convolve)


class AlexNet(nn.Module):
    """AlexNet in its single-tower form (Krizhevsky 2014, arXiv 1404.5997)."""

    minimum_size: ClassVar[int] = 31  # smallest height and width of images, in pixels

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """Returns five feature maps [B, h, w, C] of normalized images; strides 4, 8, 16, 16, 16."""
        features = []
        for i, (channels, size) in enumerate(((64, 11), (192, 5), (384, 3), (256, 3), (256, 3))):
            if i in (1, 2):
                x = max_pool(x, 3, 2)
            stride, padding = (4, 2) if i == 0 else (1, size // 2)
            x = nn.relu(_Conv(channels, (size, size), stride, padding, name=f"conv_{i}")(x))
            features.append(x)
        return features


class VGG16(nn.Module):
    """VGG16 without batch normalization (Simonyan and Zisserman 2015, arXiv 1409.1556)."""

    minimum_size: ClassVar[int] = 16  # smallest height and width of images, in pixels
    blocks: int = 5  # with fewer, images may be smaller: 8 pixels with four

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """Returns `blocks` feature maps [B, h, w, C] of normalized images, of strides 1 to 16."""
        features: list[jax.Array] = []
        index = 0
        sizes = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
        for channels, layers in sizes[: self.blocks]:
            if features:
                x = max_pool(x, 2, 2)
            for _ in range(layers):
                x = nn.relu(_Conv(channels, (3, 3), name=f"conv_{index}")(x))
                index += 1
            features.append(x)
        return features


BACKBONES: dict[str, type[AlexNet] | type[VGG16]] = {"alex": AlexNet, "vgg": VGG16}


def get_backbone(network: str) -> type[AlexNet] | type[VGG16]:
    """Returns the module class of a network; raises InputError if the name is unknown."""
    if network not in BACKBONES:
        raise InputError(f"perceptual network {network!r}: choose one of {', '.join(BACKBONES)}")
    return BACKBONES[network]
