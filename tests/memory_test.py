"""Crafted files take at most 256 MiB, however much they claim."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Run in a process of its own: memory that was used before would hide what is used again.
SCRIPT = """
import hashlib, json, os, pathlib, struct, sys, zlib
import jax, numpy as np
from pivq_jax.codec.files import open_file
from pivq_jax.common.errors import InputError
from pivq_jax.config.fields import Config
from pivq_jax.interop import safetensors_file
from pivq_jax.interop.parents import read_parents
from pivq_jax.interop.prior import read_prior
from pivq_jax.sampling import CodeSpace
from tests.memory import peak_memory

name, folder = sys.argv[1], pathlib.Path(sys.argv[2])


def codes(listed, count, data=b""):
    compressed = zlib.compress(listed, 1)
    numbers = (3, 8, 16, count, len(compressed))
    body = struct.pack(">4sBBB8s5I", b"PIVQ", 1, 0, 0, bytes(8), *numbers) + compressed + data
    (folder / "file").write_bytes(body + hashlib.sha256(body).digest()[:8])


def tensors(header, size=0):
    text = json.dumps(header).encode()
    (folder / "file.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(folder / "file.safetensors", 8 + len(text) + size)  # zeros that take no disk


def array(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


most, end = 2**20, b"\\0"
if name == "slashes":
    codes(b"/" * 130_000 + end, 1)
elif name == "folders":
    codes(b"".join(b"%d/" % i + b"a/" * 1_900 + b"a" + end for i in range(1_000)), 1_000)
elif name == "names":
    codes(b"".join(b"%07d" % i + end for i in range(8 * most)), 8 * most)
elif name == "as many names as there may be":
    smile = "\\U0001f642".encode()
    data = bytes(2**25)
    codes(b"".join(b"%011d" % i + smile + end for i in range(most)), most, data)
elif name == "codes":
    (folder / "file").write_bytes(b"PIVQ")
    os.truncate(folder / "file", 20 * 2**30)
elif name == "model":
    config = Config().with_fields({"data.image_size": 8, "model.patch_size": 4})
    held = {"pivq_jax": json.dumps({"config": config.to_dict()})}
    tensors({"__metadata__": held, "a": array("F32", [5 * 2**30], 0, 20 * 2**30)}, 20 * 2**30)
elif name == "header":
    tensors({"__metadata__": {"pivq_jax": "[" + "{}," * 10**7 + "{}]"}})
elif name == "header of JSON":
    tensors({"__metadata__": {"pivq_jax": "[" + "{}," * 10**6 + "{}]"}})
elif name in ("deep prior", "large prior"):
    depth = 16_384 if name == "deep prior" else 1
    held = {"width": 8, "depth": depth, "heads": 1, "bits": 1.0}
    held = {"pivq_jax_prior": json.dumps(held)}
    tensors({"__metadata__": held, "a": array("F32", [5 * 2**30], 0, 20 * 2**30)}, 20 * 2**30)
elif name == "parents":
    tensors({"ranks": array("U8", [10 * 2**30, 2], 0, 20 * 2**30)}, 20 * 2**30)
elif name == "factors":
    held = {"pivq_jax_factors": json.dumps({"a" * 10**6: ["b"]})}
    arrays = {"ranks": array("U8", [1, 1], 0, 1), "labels": array("U8", [1, 1], 1, 2)}
    tensors({"__metadata__": held, **arrays}, 2)


class Model:
    config = Config()
    params = {"codebook": np.zeros(1, np.float32)}


path = folder / "file.safetensors"
read = {
    "deep prior": lambda: read_prior(path, 3, 8),
    "large prior": lambda: read_prior(path, 3, 8),
    "parents": lambda: read_parents(path, CodeSpace(3, 8)),
    "factors": lambda: read_parents(path, CodeSpace(3, 8)),
    "model": lambda: safetensors_file.read_model(path),
    "header": lambda: safetensors_file.read_model(path),
    "header of JSON": lambda: safetensors_file.read_model(path),
}.get(name, lambda: open_file(folder / "file", Model()))
before = peak_memory(reset=True)
try:
    read()
except InputError as error:
    print(error)
print(peak_memory() - before)
"""
CASES = {
    "slashes": "has 130,000 characters",
    "folders": "is of a model",
    "names": "its list has another length",
    "codes": "more than 50,331,648 bytes",
    "model": "a is unexpected",
    "header": "header of 30,",
    "header of JSON": "does not say what model it is",
    "deep prior": "depth = 16384 must be at least 1 and at most 128",
    "large prior": "does not hold the weights of its prior",
    "parents": "numbers, more than 16,777,216",
    "factors": "a name has 1,000,000 characters",
    "as many names as there may be": "is of a model",
}
SLOW = "as many names as there may be"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="files of zeros that take no disk")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == SLOW)) for name in CASES]
)
def test_crafted_files_take_little_memory(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    message, grown = done.stdout.splitlines()
    assert CASES[name] in message
    assert int(grown) < 2**28
