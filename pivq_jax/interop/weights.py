"""Parameters under PyTorch's names and layouts, and back: copies of the same numbers.

    encoder/block_0/mlp/hidden/kernel   [in, out]                  in Flax is
    encoder.blocks.0.mlp.hidden.weight  [out, in]                  in PyTorch, and
    encoder/patches/kernel              [height, width, in, out]
    encoder.patches.weight              [out, in, height, width];
    encoder/norm/scale                  is encoder.norm.weight.

Biases, learned queries and the codebook keep name and layout.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.common.weights import find_faults

Params = Any
# Axes of a Flax kernel in the order that PyTorch keeps them, by number of axes.
TO_TORCH = {2: (1, 0), 4: (3, 2, 0, 1)}
FROM_TORCH = {2: (1, 0), 4: (2, 3, 1, 0)}


def to_torch(params: Params) -> dict[str, np.ndarray]:
    """A PyTorch state dict, as NumPy arrays, of Flax parameters; `from_torch` gives them back."""
    state_dict = {}
    for path, value in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(value)
        if path[-1].key == "kernel":
            array = array.transpose(TO_TORCH[array.ndim])
        state_dict[torch_name(path)] = np.array(array, order="C")
    return state_dict


def from_torch(
    state_dict: Mapping[str, np.ndarray], expected: Params, origin: str = "state_dict"
) -> Params:
    """Flax parameters of a PyTorch state dict.

    Args:
        state_dict: name -> float32 array; a tensor is given as `tensor.detach().cpu().numpy()`.
        expected: the parameters that must come out, as arrays or `jax.ShapeDtypeStruct`s: those of
            `jax.eval_shape(model.init, ...)["params"]`, or see `model_shapes`.
        origin: names the state dict in errors.

    Returns:
        a tree like `expected`, of NumPy arrays.

    Raises:
        InputError: names every array that is missing, unexpected, or of another shape or type.
    """
    tensors = {name: np.asarray(tensor) for name, tensor in state_dict.items()}
    theirs = {}
    for path, wanted in jax.tree_util.tree_leaves_with_path(expected):
        shape = wanted.shape
        if path[-1].key == "kernel":
            shape = tuple(shape[i] for i in TO_TORCH[len(shape)])
        theirs[torch_name(path)] = jax.ShapeDtypeStruct(shape, wanted.dtype)
    if faults := find_faults(tensors, theirs):
        raise InputError(f"{origin} does not fit the model of its config: {'; '.join(faults)}")

    def take(path: tuple[Any, ...], wanted: Any) -> np.ndarray:
        tensor = tensors[torch_name(path)]
        if path[-1].key == "kernel":
            tensor = tensor.transpose(FROM_TORCH[tensor.ndim])
        return np.array(tensor, order="C")

    return jax.tree_util.tree_map_with_path(take, expected)


def torch_name(path: tuple[Any, ...]) -> str:
    """The PyTorch name of a Flax parameter: modules with a number are items of a list."""
    *modules, leaf = (part.key for part in path)
    modules = [re.sub(r"^(\w+)_(\d+)$", r"\1s.\2", module) for module in modules]
    return ".".join([*modules, {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)])
