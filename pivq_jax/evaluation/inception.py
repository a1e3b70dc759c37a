"""Inception-v3 for FID: the network of the 2015 TensorFlow graph, as ported by pytorch-fid.

Source: Szegedy et al. 2016, arXiv 1512.00567. The graph differs from the paper and from
torchvision: average pooling excludes the padding, and the last block uses maximum pooling. Fréchet
inception distances are comparable only if they are computed with this network, these weights and
this way of resizing.
"""

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from pivq_jax.common.files import expanded, is_remote
from pivq_jax.common.pickles import read_torch_file
from pivq_jax.common.weights import check_weights, download, read_safetensors

# The file that pytorch-fid downloads, 96 MB.
WEIGHTS_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
    "#sha256=6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
)
MOST_BYTES = 2**27  # of what is downloaded, which may be another file of these weights
SIZE = 299  # height and width of the network's input in pixels
BLOCK_DIMS = (64, 192, 768, 2048)  # channels of the four feature blocks

_BN_EPSILON = 1e-3
_BN_PARTS = ("weight", "bias", "running_mean", "running_var")
_REMEDY = (
    f"fetch {WEIGHTS_URL.partition('#')[0]} and give its path with"
    " --config.evaluate.features_path=PATH, or use --config.evaluate.features=vgg, which needs no"
    " download"
)


class InceptionV3(nn.Module):
    """The convolutional part, with names as in torchvision and batch norms in the convolutions."""

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """Returns the four feature blocks of images f32 [B, 299, 299, 3] from `prepare`."""
        x = _Conv(32, 3, 2, "VALID", name="Conv2d_1a_3x3")(x)
        x = _Conv(32, 3, padding="VALID", name="Conv2d_2a_3x3")(x)
        x = _Conv(64, 3, name="Conv2d_2b_3x3")(x)
        first = x = nn.max_pool(x, (3, 3), (2, 2))
        x = _Conv(80, name="Conv2d_3b_1x1")(x)
        x = _Conv(192, 3, padding="VALID", name="Conv2d_4a_3x3")(x)
        second = x = nn.max_pool(x, (3, 3), (2, 2))
        x = _BlockA(32, name="Mixed_5b")(x)
        x = _BlockA(64, name="Mixed_5c")(x)
        x = _BlockA(64, name="Mixed_5d")(x)
        x = _BlockB(name="Mixed_6a")(x)
        x = _BlockC(128, name="Mixed_6b")(x)
        x = _BlockC(160, name="Mixed_6c")(x)
        x = _BlockC(160, name="Mixed_6d")(x)
        third = x = _BlockC(192, name="Mixed_6e")(x)
        x = _BlockD(name="Mixed_7a")(x)
        x = _BlockE(_average, name="Mixed_7b")(x)
        x = _BlockE(_maximum, name="Mixed_7c")(x)
        return [first, second, third, jnp.mean(x, (1, 2), keepdims=True)]


def prepare(images: jax.Array) -> jax.Array:
    """Resizes images [B, H, W, 3] and scales them from [0, 255] to [-1, 1] for `InceptionV3`.

    As in pytorch-fid, on which numbers depend, there is no antialiasing even when downsampling.
    """
    shape = (len(images), SIZE, SIZE, 3)
    scaled = images.astype(jnp.float32) / 255.0
    return 2.0 * jax.image.resize(scaled, shape, "bilinear", antialias=False) - 1.0


def load_inception(path: str | Path = "") -> dict[str, Any]:
    """Loads the file of pytorch-fid, or a safetensors file with its tensors, or either by URL."""
    url = str(path) or WEIGHTS_URL
    file = download(url, MOST_BYTES, _REMEDY) if is_remote(url) else expanded(path)
    if file.suffix == ".safetensors":
        return fold_batch_norms(read_safetensors(file, _REMEDY), str(file))
    return fold_batch_norms(read_torch_file(file, _REMEDY), str(file))


def fold_batch_norms(state_dict: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    """Converts a state dict of pytorch-fid: batch norms become parts of convolutions."""
    kernels = _kernel_shapes()
    # The classifier must be there: it tells this network from torchvision's Inception.
    expected: dict[str, tuple[int, ...]] = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}
    for name, (height, width, inputs, outputs) in kernels.items():
        expected[f"{name}.conv.weight"] = (outputs, inputs, height, width)
        expected |= {f"{name}.bn.{part}": (outputs,) for part in _BN_PARTS}
    shapes = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in expected.items()}
    used = {k: v for k, v in state_dict.items() if not k.endswith("num_batches_tracked")}
    check_weights(used, shapes, source, _REMEDY)
    weights = {name: np.asarray(x, np.float32) for name, x in used.items()}
    params = {}
    for name in kernels:
        factor, shift, mean, variance = (weights[f"{name}.bn.{part}"] for part in _BN_PARTS)
        scale = factor / np.sqrt(variance + _BN_EPSILON)
        kernel = weights[f"{name}.conv.weight"].transpose(2, 3, 1, 0)
        params[f"{name}.conv.kernel"] = jnp.asarray(kernel * scale)
        params[f"{name}.conv.bias"] = jnp.asarray(shift - mean * scale)
    return traverse_util.unflatten_dict(params, sep=".")


@cache
def _kernel_shapes() -> dict[str, tuple[int, ...]]:
    """Returns the kernel shape of each convolution by the name of its module, as `Mixed_6a.x`."""
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    variables = jax.eval_shape(InceptionV3().init, jax.random.key(0), image)
    leaves = traverse_util.flatten_dict(variables["params"], sep=".")
    ending = ".conv.kernel"
    return {k.removesuffix(ending): leaf.shape for k, leaf in leaves.items() if k.endswith(ending)}


_average = partial(nn.avg_pool, window_shape=(3, 3), padding="SAME", count_include_pad=False)
_maximum = partial(nn.max_pool, window_shape=(3, 3), padding="SAME")


class _Conv(nn.Module):
    """Convolution and ReLU."""

    channels: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = (self.kernel, self.kernel) if isinstance(self.kernel, int) else self.kernel
        convolution = nn.Conv(
            self.channels, kernel, self.stride, self.padding, precision="highest", name="conv"
        )
        return nn.relu(convolution(x))


def _chain(x: jax.Array, name: str, *layers: tuple) -> jax.Array:
    """Convolutions one after another, of these arguments of `_Conv`; they are numbered from 1."""
    for number, layer in enumerate(layers, 1):
        x = _Conv(*layer, name=f"{name}_{number}")(x)
    return x


class _BlockA(nn.Module):
    """35x35, 5x5 and double 3x3 branches."""

    pool_channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        single = _Conv(64, name="branch1x1")(x)
        five = _chain(x, "branch5x5", (48,), (64, 5))
        double = _chain(x, "branch3x3dbl", (64,), (96, 3), (96, 3))
        pooled = _Conv(self.pool_channels, name="branch_pool")(_average(x))
        return jnp.concatenate([single, five, double, pooled], -1)


class _BlockB(nn.Module):
    """35x35 to 17x17."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = _Conv(384, 3, 2, "VALID", name="branch3x3")(x)
        double = _chain(x, "branch3x3dbl", (64,), (96, 3), (96, 3, 2, "VALID"))
        return jnp.concatenate([three, double, nn.max_pool(x, (3, 3), (2, 2))], -1)


class _BlockC(nn.Module):
    """17x17, factorized 7x7 and double 7x7 branches."""

    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, wide, tall = self.channels, (1, 7), (7, 1)
        single = _Conv(192, name="branch1x1")(x)
        seven = _chain(x, "branch7x7", (c,), (c, wide), (192, tall))
        double = _chain(x, "branch7x7dbl", (c,), (c, tall), (c, wide), (c, tall), (192, wide))
        pooled = _Conv(192, name="branch_pool")(_average(x))
        return jnp.concatenate([single, seven, double, pooled], -1)


class _BlockD(nn.Module):
    """17x17 to 8x8."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        last = (3, 2, "VALID")
        three = _chain(x, "branch3x3", (192,), (320, *last))
        seven = _chain(x, "branch7x7x3", (192,), (192, (1, 7)), (192, (7, 1)), (192, *last))
        return jnp.concatenate([three, seven, nn.max_pool(x, (3, 3), (2, 2))], -1)


class _BlockE(nn.Module):
    """8x8, branches that end in 1x3 and 3x1 side by side."""

    pool: Any  # pooling of the last branch, the only difference between the two blocks

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        single = _Conv(320, name="branch1x1")(x)
        three = _Conv(384, name="branch3x3_1")(x)
        wide = _Conv(384, (1, 3), name="branch3x3_2a")(three)
        tall = _Conv(384, (3, 1), name="branch3x3_2b")(three)
        double = _chain(x, "branch3x3dbl", (448,), (384, 3))
        double_wide = _Conv(384, (1, 3), name="branch3x3dbl_3a")(double)
        double_tall = _Conv(384, (3, 1), name="branch3x3dbl_3b")(double)
        pooled = _Conv(192, name="branch_pool")(self.pool(x))
        return jnp.concatenate([single, wide, tall, double_wide, double_tall, pooled], -1)
