"""Files of network weights: where they are kept, how they are read and checked."""

import hashlib
import http.client
import os
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import write_atomically
from pivq_jax.common.pickles import read_torch_file
from pivq_jax.common.progress import progress_bar


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
    return check_weights(_read_safetensors(path, remedy), shapes, str(path), remedy)


def read_state_dict(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """Tensors under PyTorch's names, from a `.safetensors` file or from what `torch.save` wrote.

    Raises:
        InputError: no such file, or not a whole one of its kind.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path, remedy)
    return read_torch_file(path, remedy)


def _read_safetensors(path: Path, remedy: str) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path} is not a file: {remedy}")
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, KeyError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}): {remedy}") from error


def write_weights(path: Path, tree: Any) -> None:
    """Nested dictionaries of arrays to a safetensors file, as `read_weights` reads it."""
    tensors = traverse_util.flatten_dict(tree, sep=".")
    # safetensors writes the memory as it lies, so a transposed view would come back scrambled.
    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    write_atomically(path, safetensors.numpy.save(whole))


def find_faults(
    tensors: Mapping[str, np.ndarray], expected: Mapping[str, Any], any_float: bool = False
) -> list[str]:
    """What is wrong with named tensors: those missing, unexpected, misshapen or of another type.

    Args:
        tensors: by name.
        expected: what has a `shape` and a `dtype`, by name.
        any_float: allow every type of floating point numbers.

    Returns:
        a phrase for each fault; none if nothing is wrong.
    """
    found = [f"{name} is missing" for name in sorted(expected.keys() - tensors.keys())]
    found += [f"{name} is unexpected" for name in sorted(tensors.keys() - expected.keys())]
    for name in sorted(expected.keys() & tensors.keys()):
        tensor, wanted = tensors[name], expected[name]
        if tensor.shape != tuple(wanted.shape):
            found.append(f"{name} has shape {tensor.shape}, not {tuple(wanted.shape)}")
        elif any_float and not np.issubdtype(tensor.dtype, np.floating):
            found.append(f"{name} has type {tensor.dtype}, not a float")
        elif not any_float and tensor.dtype != wanted.dtype:
            found.append(f"{name} has type {tensor.dtype}, not {wanted.dtype}")
    return found


def check_weights(tensors: Mapping[str, np.ndarray], shapes: Any, source: str, remedy: str) -> Any:
    """The tree of `shapes`, filled with the tensors as float32.

    Raises:
        InputError: naming missing, unexpected and misshapen tensors, five and how many more.
    """
    expected = traverse_util.flatten_dict(shapes, sep=".")
    if wrong := find_faults(tensors, expected, any_float=True):
        shown = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise InputError(f"{source} does not hold these weights: {shown}: {remedy}")
    filled = {name: np.asarray(tensors[name], np.float32) for name in expected}
    return traverse_util.unflatten_dict(filled, sep=".")


def download(url: str, remedy: str) -> Path:
    """A file from the network, fetched once and kept in `default_weights_dir()`.

    Args:
        url: http or https, ending in `#sha256=` and the checksum of the file in hexadecimals.
        remedy: what a person can do without a network, as the end of a sentence.

    Raises:
        InputError: no checksum in the URL, no answer, or a file that has another checksum.
    """
    address, _, fragment = url.partition("#")
    checksum = fragment.removeprefix("sha256=").lower()
    if not re.fullmatch(r"https?://[^/]+/.+", address) or not re.fullmatch(
        r"[0-9a-f]{64}", checksum
    ):
        raise InputError(
            f"{url} is not a URL that can be trusted: write https://..., then #sha256= and the 64"
            " digits of the file's checksum"
        )
    # Part of the checksum in the name: another version is another file.
    name = Path(urllib.parse.urlsplit(address).path).name
    path = default_weights_dir() / checksum[:16] / name
    if not path.exists():
        content = _fetch(address, name, remedy)
        found = hashlib.sha256(content).hexdigest()
        if found != checksum:
            raise InputError(f"{address} has the SHA-256 {found}, not {checksum}: {remedy}")
        write_atomically(path, content)
    return path


def _fetch(address: str, name: str, remedy: str) -> bytes:
    """The answer of a server, with a progress bar."""
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            total = int(answer.headers.get("Content-Length", 0)) or None
            bar = progress_bar(desc=name, total=total, unit="B", unit_scale=True)
            content = bytearray()
            with bar:
                while part := answer.read(2**20):
                    content += part
                    bar.update(len(part))
    except (OSError, http.client.HTTPException) as error:
        raise InputError(f"{address} cannot be fetched ({error}): {remedy}") from error
    return bytes(content)
