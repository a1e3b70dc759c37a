"""Conversion of parameters to PyTorch's names and layouts and back; values stay the same.

::

    encoder/block_0/mlp/hidden/kernel   [in, out]                  in Flax is
    encoder.blocks.0.mlp.hidden.weight  [out, in]                  in PyTorch, and
    encoder/patches/kernel              [height, width, in, out]
    encoder.patches.weight              [out, in, height, width];
    encoder/norm/scale                  is encoder.norm.weight.

Biases, learned queries, the codebook and the kernels of `LocalOutput` keep name and layout.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from pivq_jax.common.errors import InputError, listed
from pivq_jax.common.params import Params
from pivq_jax.common.weights import find_faults

# Axes of a Flax kernel in the order of PyTorch, by number of axes.
TO_TORCH = {2: (1, 0), 4: (3, 2, 0, 1)}
FROM_TORCH = {2: (1, 0), 4: (2, 3, 1, 0)}


def to_torch(params: Params) -> dict[str, np.ndarray]:
    """Converts Flax parameters, a tree of arrays, to a PyTorch state dict: undoes `from_torch`.

    Returns copies as NumPy arrays of the same dtypes, by PyTorch's names.
    """
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
    """Converts a PyTorch state dict to Flax parameters.

    Args:
        state_dict: float32 arrays by name; pass a tensor as `tensor.detach().cpu().numpy()`.
        expected: tree of the parameters, as arrays or `jax.ShapeDtypeStruct`s, for example
            `jax.eval_shape(model.init, ...)["params"]`; see also `model_shapes`.
        origin: name of the state dict for error messages.

    Returns:
        a tree like `expected` of NumPy arrays, which are copies.

    Raises:
        InputError: if arrays are missing, unexpected, or of another shape or type; the message
            names up to five of them.
    """
    tensors = {name: np.asarray(tensor) for name, tensor in state_dict.items()}
    check_state_dict(tensors, expected, origin)

    def take(path: tuple[Any, ...], expected_leaf: Any) -> np.ndarray:
        tensor = tensors[torch_name(path)]
        if path[-1].key == "kernel":
            tensor = tensor.transpose(FROM_TORCH[tensor.ndim])
        return np.array(tensor, order="C")

    return jax.tree_util.tree_map_with_path(take, expected)


def check_state_dict(state_dict: Mapping[str, Any], expected: Params, origin: str) -> None:
    """Checks names, shapes and types of a state dict, arrays or `jax.ShapeDtypeStruct`s."""
    theirs = {}
    for path, expected_leaf in jax.tree_util.tree_leaves_with_path(expected):
        shape = expected_leaf.shape
        if path[-1].key == "kernel":
            shape = tuple(shape[i] for i in TO_TORCH[len(shape)])
        theirs[torch_name(path)] = jax.ShapeDtypeStruct(shape, expected_leaf.dtype)
    if faults := find_faults(state_dict, theirs):
        raise InputError(f"{origin} does not fit the model of its config: {listed(faults)}")


def torch_name(path: tuple[Any, ...]) -> str:
    """Returns the PyTorch name of a Flax parameter; numbered modules become items of a list."""
    *modules, leaf = (part.key for part in path)
    modules = [re.sub(r"^(\w+)_(\d+)$", r"\1s.\2", module) for module in modules]
    return ".".join([*modules, {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)])
