"""Reads arrays from pickled files without executing code in them.

A pickle is a program: loading one calls any function that it names. These unpicklers know the few
names that stand for arrays and reject all others. PyTorch's files are read by the one written in
Python: in the one written in C, the memo takes as much memory as a number in a damaged file says.
"""

import collections
import math
import pickle
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from flax import traverse_util

from pivq_jax.common.errors import InputError, brief

# Content of the first pickle in a PyTorch file before version 1.6.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

# Types of storage, as text, which has no attributes that a pickle could set.
_STORAGES = {
    "HalfStorage": "<f2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
}


def read_numpy_pickle(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """Reads nested dictionaries of NumPy arrays from a pickle; nested keys are joined by dots."""
    try:
        with path.open("rb") as file:
            tree = _NumpyUnpickler(file).load()
        tensors = traverse_util.flatten_dict(tree, sep=".")
        return {name: _array(tensor) for name, tensor in tensors.items()}
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(
            f"{path} is not a whole pickle of arrays ({brief(error)}): {remedy}"
        ) from error


def read_torch_file(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """Reads a state dict written by `torch.save`, without PyTorch.

    It is a zip archive (PyTorch 1.6 and later) or a sequence of pickles (before), of tensors of
    floats of 16, 32 or 64 bits and integers of 64.
    """
    try:
        with path.open("rb") as file:
            is_zip = zipfile.is_zipfile(file)
            file.seek(0)
            tensors, storages = (_read_zip if is_zip else _read_legacy)(file)
            return {str(name): x.read(storages[x.storage]) for name, x in tensors.items()}
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(
            f"{path} is not a whole PyTorch state dict ({brief(error)}): {remedy}"
        ) from error


def _array(value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"it holds a {type(value).__name__}, which is not an array")
    return array


class _NumpyUnpickler(pickle.Unpickler):
    """Unpickler of NumPy arrays, of a package that is installed, and of built-in types."""

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "numpy", "ndarray" | "dtype":
                return getattr(np, name)
            case "numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct":
                return np.array(0).__reduce__()[0]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not an array")


class _Tensor(NamedTuple):
    """A pickled tensor: a view of a storage whose data are elsewhere."""

    dtype: np.dtype
    storage: str
    offset: int  # in elements, as the strides
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, storage: bytes) -> np.ndarray:
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        data = np.frombuffer(storage, self.dtype)
        # None of these is negative; a stride of 0 would repeat what is there.
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if last >= len(data) or math.prod(self.shape) > len(data):
            raise ValueError(f"a tensor of shape {self.shape} in {len(data)} numbers")
        strides = [s * self.dtype.itemsize for s in self.strides]
        view = np.lib.stride_tricks.as_strided(data[self.offset :], self.shape, strides)
        return np.ascontiguousarray(view).reshape(self.shape)


class _TorchUnpickler(pickle._Unpickler):
    """Unpickler of dictionaries of `_Tensor`."""

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "collections", "OrderedDict":
                return collections.OrderedDict
            case "torch._utils", "_rebuild_tensor_v2":
                return _rebuild_tensor
            case "torch._utils", "_rebuild_parameter":
                return lambda data, *_: data
            case "torch", storage if storage in _STORAGES:
                return _STORAGES[storage]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not a tensor")

    def persistent_load(self, pid: Any) -> tuple[np.dtype, str]:
        kind, storage, key, *_ = pid
        if kind != "storage" or storage not in _STORAGES.values():
            raise pickle.UnpicklingError("it refers to something that is not a storage")
        return np.dtype(storage), str(key)


def _rebuild_tensor(
    storage: tuple[np.dtype, str], offset: int, shape: Any, strides: Any, *_: Any
) -> _Tensor:
    numbers = (offset, *shape, *strides)
    if len(shape) > 8 or not all(isinstance(n, int) and 0 <= n < 2**48 for n in numbers):
        raise pickle.UnpicklingError(f"a tensor of {len(shape)} axes, or of wrong numbers")
    return _Tensor(*storage, offset, tuple(shape), tuple(strides))


def _read_zip(file: IO[bytes]) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    """Reads an archive with `data.pkl` and `data/<key>`: tensors, and the storages they use."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        (pickled,) = (name for name in names if name.split("/")[1:] == ["data.pkl"])
        root = pickled.removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        tensors = _TorchUnpickler(archive.open(pickled)).load()
        keys = {tensor.storage for tensor in tensors.values()}
        return tensors, {key: archive.read(f"{root}data/{key}") for key in keys}


def _read_legacy(file: IO[bytes]) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    """Same for the older format: four pickles, the keys of the storages, the storages."""
    magic, _, system, tensors, keys = (_TorchUnpickler(file).load() for _ in range(5))
    if magic != _LEGACY_MAGIC or not system["little_endian"]:
        raise ValueError("it does not begin as a PyTorch file does")
    itemsizes = {tensor.storage: tensor.dtype.itemsize for tensor in tensors.values()}
    storages = {}
    for key in map(str, keys):
        storages[key] = file.read(int.from_bytes(file.read(8), "little") * itemsizes[key])
    return tensors, storages
