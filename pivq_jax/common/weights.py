"""Files of network weights: location, download, reading and checks."""

import contextlib
import hashlib
import http.client
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from pivq_jax.common.errors import InputError, brief, listed
from pivq_jax.common.files import cache_folder, write_atomically
from pivq_jax.common.output import progress_bar

# Types of numbers in safetensors files that NumPy has; bfloat16 comes with JAX.
_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}

# Tensors in the largest safetensors file that is read, some twenty times those of a deep model, and
# bytes of its header: as Python objects, JSON takes up to twenty times as many.
_MAX_TENSORS = 50_000
_MAX_HEADER = 2**22


def default_weights_dir() -> Path:
    """Returns the directory of weights, $PIVQ_WEIGHTS_DIR or else ~/.cache/pivq_jax/weights."""
    return cache_folder("weights", "PIVQ_WEIGHTS_DIR")


def read_weights(path: Path, shapes: Any, remedy: str) -> Any:
    """Reads a tree of float32 arrays, named by their path as in `backbone.conv_0.bias`."""
    # Before what may be larger than the memory is read.
    check_weights(read_header(path, remedy)[0], shapes, str(path), remedy)
    arrays = read_safetensors(path, remedy).items()
    return traverse_util.unflatten_dict({k: np.asarray(x, np.float32) for k, x in arrays}, sep=".")


def read_safetensors(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """Reads the arrays of a safetensors file by name."""
    with _opened(path, remedy) as file:
        return {name: file.get_tensor(name) for name in _shapes(file, path)}


def read_header(path: Path, remedy: str) -> tuple[dict[str, jax.ShapeDtypeStruct], dict[str, str]]:
    """Reads the shapes and dtypes in a safetensors file by name, and its metadata, but no array."""
    with _opened(path, remedy) as file:
        return _shapes(file, path), file.metadata() or {}


@contextlib.contextmanager
def _opened(path: Path, remedy: str) -> Iterator[Any]:
    if not path.is_file():
        raise InputError(f"{path} is not a file: {remedy}")
    try:
        with path.open("rb") as start:
            header = int.from_bytes(start.read(8), "little")
        if _MAX_HEADER < header < path.stat().st_size:  # otherwise the library says what is wrong
            raise InputError(
                f"{path} has a header of {header:,} bytes, more than {_MAX_HEADER:,}: {remedy}"
            )
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except (InputError, MemoryError):
        raise
    except Exception as error:  # the library raises several types for a damaged file
        raise InputError(
            f"{path} is not a whole safetensors file ({brief(error)}): {remedy}"
        ) from error


def _shapes(file: Any, path: Path) -> dict[str, jax.ShapeDtypeStruct]:
    names, shapes = file.keys(), {}
    if len(names) > _MAX_TENSORS:
        raise InputError(f"{path} holds {len(names):,} tensors, more than {_MAX_TENSORS:,}")
    for name in names:
        tensor = file.get_slice(name)
        if (dtype := tensor.get_dtype()) not in _DTYPES:
            raise InputError(f"{path} holds {name} as {dtype}: use one of {', '.join(_DTYPES)}")
        shapes[name] = jax.ShapeDtypeStruct(tuple(tensor.get_shape()), _DTYPES[dtype])
    return shapes


def write_weights(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays, atomically, to a file for `read_weights`."""
    _keep(path, pack_arrays(arrays))


def pack_arrays(arrays: Mapping[str, Any], metadata: dict[str, str] | None = None) -> bytes:
    """Returns the content of a safetensors file with arrays, by name, of any layout."""
    # The library writes raw memory, whatever its strides.
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return safetensors.numpy.save(whole, metadata)


def digest(arrays: Mapping[str, Any]) -> bytes:
    """The SHA-256 of float32 arrays by name, as docs/codec_format.md has it for fingerprints."""
    sha256 = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], "<f4")
        sha256.update(f"{name}\n{array.shape}\n".encode())
        sha256.update(array.tobytes())
    return sha256.digest()


def _keep(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): set PIVQ_WEIGHTS_DIR to a directory that"
            " can, or to one that holds the file"
        ) from error


def find_faults(
    tensors: Mapping[str, Any], expected: Mapping[str, Any], any_float: bool = False
) -> list[str]:
    """Lists tensors that are missing, unexpected, or of another shape or type, in a fixed order.

    `any_float` accepts every floating point dtype instead of the expected one.
    """
    faults = [f"{name} is missing" for name in sorted(expected.keys() - tensors.keys())]
    faults += [f"{name} is unexpected" for name in sorted(tensors.keys() - expected.keys())]
    for name in sorted(expected.keys() & tensors.keys()):
        tensor, reference = tensors[name], expected[name]
        if tensor.shape != tuple(reference.shape):
            faults.append(f"{name} has shape {tensor.shape}, not {tuple(reference.shape)}")
        elif any_float and not jnp.issubdtype(tensor.dtype, jnp.floating):
            faults.append(f"{name} has type {tensor.dtype}, not a float")
        elif not any_float and tensor.dtype != reference.dtype:
            faults.append(f"{name} has type {tensor.dtype}, not {reference.dtype}")
    return faults


def check_weights(tensors: Mapping[str, Any], shapes: Any, source: str, remedy: str) -> None:
    """Checks named tensors, or what a header says of them, against a tree of shapes.

    The error names up to five faults.
    """
    expected = traverse_util.flatten_dict(shapes, sep=".")
    if wrong := find_faults(tensors, expected, any_float=True):
        raise InputError(f"{source} does not hold these weights: {listed(wrong)}: {remedy}")


def download(url: str, most: int, remedy: str) -> Path:
    """Downloads a file once; its URL ends in `#sha256=` and the file's hexadecimal checksum.

    A file of more than `most` bytes is refused before all of it is read.
    """
    parts = re.fullmatch(r"(https?://[^/#]+/[^#]+)#(?:sha256=)?([0-9a-fA-F]{64})", url)
    if not parts:
        raise InputError(
            f"{url} is not a URL that can be trusted: write https://..., then #sha256= and the 64"
            " digits of the file's checksum"
        )
    address, checksum = parts[1], parts[2].lower()
    # The path contains part of the checksum, so different versions are different files.
    name = Path(urllib.parse.urlsplit(address).path).name
    path = default_weights_dir() / checksum[:16] / name
    if not path.exists():
        content = _fetch(address, name, most, remedy)
        actual = hashlib.sha256(content).hexdigest()
        if actual != checksum:
            raise InputError(f"{address} has the SHA-256 {actual}, not {checksum}: {remedy}")
        _keep(path, content)
    return path


def _fetch(address: str, name: str, most: int, remedy: str) -> bytes:
    """Downloads a file into memory, with a progress bar."""
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            total, content = answer.length, bytearray()
            with progress_bar(desc=name, total=total, unit="B", unit_scale=True) as bar:
                while max(total or 0, len(content)) <= most and (part := answer.read(2**20)):
                    content += part
                    bar.update(len(part))
    except (OSError, http.client.HTTPException) as error:
        raise InputError(f"{address} cannot be fetched ({error}): {remedy}") from error
    if max(total or 0, len(content)) > most:
        raise InputError(f"{address} has more than {most:,} bytes: {remedy}")
    return bytes(content)
