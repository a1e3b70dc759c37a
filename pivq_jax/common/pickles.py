"""Reads arrays from pickled files without executing code in them.

A pickle is a program: loading one calls any function that it names. This unpickler knows the few
names that stand for arrays and rejects all others. It is the one written in Python: in the one
written in C, the memo takes as much memory as a number in a damaged file says.
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


def read_numpy_pickle(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """Reads nested dictionaries of NumPy arrays from a pickle; nested keys are joined by dots."""
    try:
        with path.open("rb") as file:
            tree = _Unpickler(file, _NUMPY).load()
        arrays = {k: np.asarray(x) for k, x in traverse_util.flatten_dict(tree, sep=".").items()}
        if others := [name for name, array in arrays.items() if array.dtype.kind not in "biuf"]:
            raise pickle.UnpicklingError(f"it holds {others[0]}, which is not an array")
        return arrays
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


def _rebuild_tensor(
    storage: tuple[np.dtype, str], offset: int, shape: Any, strides: Any, *_: Any
) -> _Tensor:
    numbers = (offset, *shape, *strides)
    if len(shape) > 8 or not all(isinstance(n, int) and 0 <= n < 2**48 for n in numbers):
        raise pickle.UnpicklingError(f"a tensor of {len(shape)} axes, or of wrong numbers")
    return _Tensor(*storage, offset, tuple(shape), tuple(strides))


# Values for the names in pickles. A type of storage is text, which has no attributes to set.
_NUMPY = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.array(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.array(0).__reduce__()[0],
}
_STORAGES = {
    ("torch", "HalfStorage"): "<f2",
    ("torch", "FloatStorage"): "<f4",
    ("torch", "DoubleStorage"): "<f8",
    ("torch", "LongStorage"): "<i8",
}
_TORCH = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    **_STORAGES,
}


class _Unpickler(pickle._Unpickler):
    """Unpickler of built-in types and of what has one of the known names."""

    def __init__(self, file: Any, known: dict[tuple[str, str], Any]) -> None:
        super().__init__(file)
        self._known = known

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not an array")
        return self._known[module, name]

    def persistent_load(self, pid: Any) -> tuple[np.dtype, str]:
        kind, storage, key, *_ = pid
        if kind != "storage" or storage not in _STORAGES.values():
            raise pickle.UnpicklingError("it refers to something that is not a storage")
        return np.dtype(storage), str(key)


def _read_zip(file: IO[bytes]) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    """Reads an archive with `data.pkl` and `data/<key>`: tensors, and the storages they use."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        (pickled,) = (name for name in names if name.split("/")[1:] == ["data.pkl"])
        root = pickled.removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        tensors = _Unpickler(archive.open(pickled), _TORCH).load()
        keys = {tensor.storage for tensor in tensors.values()}
        return tensors, {key: archive.read(f"{root}data/{key}") for key in keys}


def _read_legacy(file: IO[bytes]) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    """Same for the older format: four pickles, the keys of the storages, the storages."""
    magic, _, system, tensors, keys = (_Unpickler(file, _TORCH).load() for _ in range(5))
    if magic != _LEGACY_MAGIC or not system["little_endian"]:
        raise ValueError("it does not begin as a PyTorch file does")
    itemsizes = {tensor.storage: tensor.dtype.itemsize for tensor in tensors.values()}
    storages = {}
    for key in map(str, keys):
        storages[key] = file.read(int.from_bytes(file.read(8), "little") * itemsizes[key])
    return tensors, storages
