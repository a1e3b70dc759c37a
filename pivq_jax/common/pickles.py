"""Reads arrays from pickled files without executing code in them.

A pickle is a program: loading one calls any function that it names. These unpicklers know the few
names that stand for arrays and reject all others.
"""

import collections
import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from pivq_jax.common.errors import InputError

# Content of the first pickle in a PyTorch file before version 1.6.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")

_STORAGES = {
    "HalfStorage": np.dtype("<f2"),
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "LongStorage": np.dtype("<i8"),
}


def read_numpy_pickle(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """Reads nested dictionaries of NumPy arrays from a pickle.

    Args:
        path: the file.
        remedy: what the user can do about an invalid file; appended to the error message.

    Returns:
        A flat dictionary; nested keys are joined by dots.

    Raises:
        InputError: if the file is missing or damaged, or contains anything but arrays.
    """
    try:
        tree = _NumpyUnpickler(io.BytesIO(path.read_bytes())).load()
        tensors = traverse_util.flatten_dict(tree, sep=".")
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"{path} is not a whole pickle of arrays ({error}): {remedy}") from error
    return {
        name: tensor.value if isinstance(tensor, _NumpyArray) else np.asarray(tensor)
        for name, tensor in tensors.items()
    }


def read_torch_file(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """Reads a state dict written by `torch.save`, in either of its formats, without PyTorch.

    Args:
        path: a zip archive (PyTorch 1.6 and later) or a sequence of pickles (before).
        remedy: what the user can do about an invalid file; appended to the error message.

    Returns:
        The arrays by name.

    Raises:
        InputError: if the file is missing or damaged, or contains anything but tensors of 16-, 32-
            or 64-bit floats and 64-bit integers.
    """
    try:
        content = path.read_bytes()
        is_zip = zipfile.is_zipfile(io.BytesIO(content))
        tensors, storages = (_read_zip if is_zip else _read_legacy)(content)
        return {str(name): tensor.read(storages) for name, tensor in tensors.items()}
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"{path} is not a whole PyTorch state dict ({error}): {remedy}") from error


class _NumpyUnpickler(pickle.Unpickler):
    """Unpickler of NumPy arrays and of built-in types: dictionaries, lists, strings, numbers."""

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "numpy", "ndarray":
                return name  # the first argument of _reconstruct; it cannot be called
            case "numpy", "dtype":
                return _NumpyDtype
            case "numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct":
                return _NumpyArray
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not an array")


class _NumpyDtype:
    """A pickled dtype: a number of fixed size.

    NumPy's own classes must not restore their state from an untrusted file: a dtype of objects with
    its flags cleared makes an array of pointers from the bytes of the file.
    """

    def __init__(self, code: str, *_: Any) -> None:
        if code not in _NUMBERS:
            raise pickle.UnpicklingError(f"its numbers are {code!r}: use one of {_NUMBERS}")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _NumpyArray:
    """A pickled array."""

    def __init__(self, *_: Any) -> None:
        self.value = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _NumpyDtype) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array has no bytes or no dtype")
        order: Any = "F" if fortran else "C"
        self.value = np.frombuffer(data, dtype.value).reshape(shape, order=order)


class _Tensor(NamedTuple):
    """A pickled tensor: a view of a storage whose data are elsewhere."""

    dtype: np.dtype
    storage: str
    offset: int  # in elements, as the strides
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, storages: dict[str, bytes]) -> np.ndarray:
        data = np.frombuffer(storages[self.storage], self.dtype)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if min(self.shape, default=1) < 1 or min(self.offset, *self.strides, 0) < 0:
            raise ValueError(f"a tensor of shape {self.shape} and strides {self.strides}")
        if last >= len(data):
            raise ValueError(f"storage {self.storage} ends before its tensor")
        if math.prod(self.shape) > len(data):  # a stride of 0 repeats what is there
            raise ValueError(f"a tensor of shape {self.shape} in {len(data)} numbers")
        strides = [s * self.dtype.itemsize for s in self.strides]
        view = np.lib.stride_tricks.as_strided(data[self.offset :], self.shape, strides)
        return np.ascontiguousarray(view).reshape(self.shape)


class _TorchUnpickler(pickle.Unpickler):
    """Unpickler of dictionaries of `_Tensor`."""

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "collections", "OrderedDict":
                return collections.OrderedDict
            case "torch._utils", "_rebuild_tensor_v2":
                return _rebuild_tensor
            case "torch._utils", "_rebuild_parameter":
                return _rebuild_parameter
            case "torch", storage if storage in _STORAGES:
                return _STORAGES[storage]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not a tensor")

    def persistent_load(self, pid: Any) -> tuple[np.dtype, str]:
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError(f"it asks for {kind!r}, which is not a storage")
        return dtype, str(key)


def _rebuild_tensor(
    storage: tuple[np.dtype, str], offset: int, shape: Any, strides: Any, *_: Any
) -> _Tensor:
    return _Tensor(*storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data: _Tensor, *_: Any) -> _Tensor:
    return data


def _read_zip(content: bytes) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    """Returns the state dict and its storages from an archive with `data.pkl` and `data/<key>`."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        if sum(entry.file_size for entry in archive.infolist()) > len(content):
            raise ValueError("it is compressed, which PyTorch's files are not")
        (pickled,) = (name for name in names if name.split("/")[1:] == ["data.pkl"])
        root = pickled.removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        tensors = _TorchUnpickler(io.BytesIO(archive.read(pickled))).load()
        prefix = f"{root}data/"
        storages = {n.removeprefix(prefix): archive.read(n) for n in names if n.startswith(prefix)}
    return tensors, storages


def _read_legacy(content: bytes) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    """Same for the older format: four pickles, the keys of the storages, the storages."""
    file = io.BytesIO(content)
    magic, _, system, tensors, keys = (_TorchUnpickler(file).load() for _ in range(5))
    if magic != _LEGACY_MAGIC or not system["little_endian"]:
        raise ValueError("it does not begin as a PyTorch file does")
    itemsizes = {tensor.storage: tensor.dtype.itemsize for tensor in tensors.values()}
    storages = {}
    for key in keys:
        length = int.from_bytes(file.read(8), "little") * itemsizes[key]
        storages[key] = file.read(length)
    return tensors, storages
