"""Files of network weights: where they are kept, and how they are read without running code."""

import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from pivq_jax.errors import InputError
from pivq_jax.files import write_atomically


def default_weights_dir() -> Path:
    """The directory of converted weights: $PIVQ_WEIGHTS_DIR, else ~/.cache/pivq_jax/weights."""
    return Path(os.environ.get("PIVQ_WEIGHTS_DIR") or "~/.cache/pivq_jax/weights").expanduser()


def read_weights(path: Path, shapes: Any, remedy: str) -> Any:
    """A tree of float32 arrays from a safetensors file, checked before use.

    Args:
        path: the file; the tensors are named by their place in the tree, as `backbone.conv_0.bias`.
        shapes: nested dictionaries whose leaves have a `shape`, as `jax.eval_shape` gives them.
        remedy: what a person can do about a bad file, as the end of a sentence.

    Raises:
        InputError: no such file, not a whole safetensors file, or not these tensors.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file: {remedy}")
    try:
        tensors = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, KeyError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}): {remedy}") from error
    return check_weights(tensors, shapes, str(path), remedy)


def write_weights(path: Path, tree: Any) -> None:
    """Nested dictionaries of arrays to a safetensors file, as `read_weights` reads it."""
    tensors = traverse_util.flatten_dict(tree, sep=".")
    # safetensors writes the memory as it lies, so a transposed view would come back scrambled.
    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    write_atomically(path, safetensors.numpy.save(whole))


def check_weights(tensors: Mapping[str, np.ndarray], shapes: Any, source: str, remedy: str) -> Any:
    """The tree of `shapes`, filled with the tensors as float32.

    Raises:
        InputError: naming every missing, unexpected or misshapen tensor.
    """
    expected = {
        name: tuple(leaf.shape)
        for name, leaf in traverse_util.flatten_dict(shapes, sep=".").items()
    }
    wrong = [f"{name} is missing" for name in sorted(expected.keys() - tensors.keys())]
    wrong += [f"{name} is unexpected" for name in sorted(tensors.keys() - expected.keys())]
    for name in sorted(expected.keys() & tensors.keys()):
        tensor = tensors[name]
        if tensor.shape != expected[name]:
            wrong.append(f"{name} has shape {tensor.shape}, not {expected[name]}")
        elif not np.issubdtype(tensor.dtype, np.floating):
            wrong.append(f"{name} has type {tensor.dtype}, not a float")
    if wrong:
        shown = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise InputError(f"{source} does not hold these weights: {shown}: {remedy}")
    filled = {name: np.asarray(tensors[name], np.float32) for name in expected}
    return traverse_util.unflatten_dict(filled, sep=".")


def read_numpy_pickle(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """Nested dictionaries of NumPy arrays from a pickle, flat: names are joined by dots.

    Raises:
        InputError: no such file, a damaged one, or a pickle that asks for anything but arrays.
    """
    try:
        tree = _NumpyUnpickler(io.BytesIO(path.read_bytes())).load()
        tensors = traverse_util.flatten_dict(tree, sep=".")
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"{path} is not a whole pickle of arrays ({error}): {remedy}") from error
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}


class _NumpyUnpickler(pickle.Unpickler):
    """Loads arrays; every other global is refused, so that a pickle cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return np.dtype
            case "numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct":
                return _empty_array
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not an array")


def _empty_array(kind: type, shape: tuple[int, ...], code: bytes) -> np.ndarray:
    """What a pickled array is before its state is set."""
    return np.ndarray(shape, code.decode())
