"""Files of weights: safetensors from anywhere, and a cache that may be read-only."""

import errno
import hashlib
import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pivq_jax.common import weights
from pivq_jax.common.errors import InputError
from pivq_jax.common.weights import download, read_safetensors, read_weights, write_weights


def write(path, header, data=b""):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E8M0"])
def test_numbers_that_numpy_lacks_are_named(tmp_path, dtype):
    header = {"w": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2]}}
    path = write(tmp_path / "w.safetensors", header, b"ab")
    with pytest.raises(InputError, match=rf"holds w as {dtype}: use one of F64, F32, "):
        read_safetensors(path, "")


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_weights_of_every_float_are_taken_as_float32(tmp_path, dtype):
    write_weights(tmp_path / "w", {"w": np.arange(3).astype(jnp.dtype(dtype))})
    taken = read_weights(tmp_path / "w", {"w": jax.ShapeDtypeStruct((3,), np.float32)}, "")
    assert taken["w"].dtype == np.float32 and taken["w"].tolist() == [0, 1, 2]


def test_more_tensors_than_any_model_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_MAX_TENSORS", 2)
    tensor = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    path = write(tmp_path / "w.safetensors", dict.fromkeys("abc", tensor))
    with pytest.raises(InputError, match="holds 3 tensors, more than 2"):
        read_safetensors(path, "")


def test_a_cache_that_cannot_be_written_is_named_with_the_remedy(tmp_path, monkeypatch):
    def refuse(path, content):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(weights, "write_atomically", refuse)
    monkeypatch.setattr(weights, "_fetch", lambda *_: b"content")
    monkeypatch.setenv("PIVQ_WEIGHTS_DIR", str(tmp_path))
    message = r"cannot be written \(Read-only file system\): set PIVQ_WEIGHTS_DIR to a directory"
    with pytest.raises(InputError, match=message):
        write_weights(tmp_path / "w.safetensors", {"a": np.zeros(3)})
    checksum = hashlib.sha256(b"content").hexdigest()
    with pytest.raises(InputError, match=message):
        download(f"https://example.org/w.pth#sha256={checksum}", 2**20, "")
