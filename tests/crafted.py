"""Files that claim or hold more than any of use: `main` makes and reads one of those exchanged.

It prints the error, and the bytes of memory that the parser took. A process of its own reads each:
memory that was used before would hide what is used again.
"""

import hashlib
import json
import os
import signal
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.memory import peak_memory


class Case(NamedTuple):
    """What reads a file, what its error says (empty if it is read), and what makes it."""

    parser: str
    message: str
    craft: Callable[[Path], Callable[[], object]]
    slow: bool


CASES: dict[str, Case] = {}
HUGE = 20 * 2**30


def case(parser: str, message: str, name: str, *arguments: Any, slow: bool = False) -> Any:
    """Adds a case whose file is made by the decorated function with these arguments."""

    def add(function: Callable[..., Callable[[], object]]) -> Callable[..., Callable[[], object]]:
        CASES[name] = Case(parser, message, lambda folder: function(folder, *arguments), slow)
        return function

    return add


# Files of codes.


def read_codes(path: Path, **sizes: int) -> Callable[[], object]:
    from pivq_jax.codec.files import open_file
    from pivq_jax.config.fields import Config
    from pivq_jax.sampling import CodeSpace

    class Model:
        config = Config()
        space = CodeSpace.of(config)
        fingerprint = bytes(range(8))

    return lambda: open_file(path, Model())  # type: ignore[arg-type]


def codes(folder: Path, listed: bytes, count: int, data: bytes = b"") -> Callable[[], object]:
    compressed = zlib.compress(listed, 1)
    numbers = (3, 8, 16, count, len(compressed))
    body = struct.pack(">4sBBB8s5I", b"PIVQ", 1, 0, 0, bytes(8), *numbers) + compressed + data
    (folder / "file").write_bytes(body + hashlib.sha256(body).digest()[:8])
    return read_codes(folder / "file")


@case("codec.read", "has 130,000 characters", "slashes", slow=True)
def _(folder: Path) -> Callable[[], object]:
    return codes(folder, b"/" * 130_000 + b"\0", 1)


@case("codec.read", "is of a model", "folders", slow=True)
def _(folder: Path) -> Callable[[], object]:
    listed = (b"%d/" % i + b"a/" * 1_900 + b"a\0" for i in range(1_000))
    return codes(folder, b"".join(listed), 1_000)


@case("codec.read", "its list has another length", "names", slow=True)
def _(folder: Path) -> Callable[[], object]:
    return codes(folder, b"".join(b"%07d\0" % i for i in range(2**23)), 2**23)


@case("codec.read", "is of a model", "as many names as there may be", slow=True)
def _(folder: Path) -> Callable[[], object]:
    smile = "\U0001f642".encode()
    listed = b"".join(b"%011d" % i + smile + b"\0" for i in range(2**20))
    return codes(folder, listed, 2**20, bytes(2**25))


@case("codec.read", "more than 50,331,648 bytes", "codes")
def _(folder: Path) -> Callable[[], object]:
    return read_codes(sparse(folder / "file", b"PIVQ"))


@case("codec.read", "", "sets of 4,096 of 65,536 codes", 4_096, 65_536, 2, slow=True)
@case("codec.read", "", "sets of nearly all entries", 65_535, 65_537, 100, slow=True)
@case(
    "codec.read",
    "more than 33,554,432",
    "more sets of nearly all entries",
    65_535,
    65_537,
    600,
    slow=True,
)
def _(folder: Path, num_codes: int, size: int, count: int) -> Callable[[], object]:
    from types import SimpleNamespace

    from pivq_jax import codec
    from pivq_jax.codec.container import Contents, pack
    from pivq_jax.config.fields import Config
    from pivq_jax.sampling import CodeSpace

    fields = {"model.num_codes": num_codes, "quantizer.codebook_size": size}
    config, space, own = Config().with_fields(fields), CodeSpace(num_codes, size), bytes(8)
    model: Any = SimpleNamespace(config=config, fingerprint=own, space=space)
    names = tuple(f"{i}.png" for i in range(count))
    data = bytes(count * space.bytes_per_image)
    head = ("matching", "fixed", own, num_codes, size, config.data.image_size)
    (folder / "file").write_bytes(pack(Contents(*head, b"", names, data)))
    return lambda: codec.read(folder / "file", model)


# Files of tensors.


def sparse(path: Path, start: bytes, size: int = HUGE) -> Path:
    """Writes a file that ends in zeros, which take no disk."""
    path.write_bytes(start)
    os.truncate(path, size)
    return path


def tensors(folder: Path, header: dict, size: int = 0) -> Path:
    text = json.dumps(header).encode()
    start = struct.pack("<Q", len(text)) + text
    return sparse(folder / "file.safetensors", start, len(start) + size)


def array(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def read_model(path: Path) -> Callable[[], object]:
    from pivq_jax.interop import safetensors_file

    return lambda: safetensors_file.read_model(path)


@case("a model", "does not fit the model of its config", "model")
def _(folder: Path) -> Callable[[], object]:
    from pivq_jax.config.fields import Config

    config = Config().with_fields({"data.image_size": 8, "model.patch_size": 4})
    held = {"pivq_jax": json.dumps({"config": config.to_dict()})}
    header = {"__metadata__": held, "a": array("F32", [5 * 2**30], 0, HUGE)}
    return read_model(tensors(folder, header, HUGE))


@case("a model", "header of 30,", "header", 10**7, slow=True)
@case("a model", "does not say what model it is", "header of JSON", 10**6, slow=True)
def _(folder: Path, count: int) -> Callable[[], object]:
    return read_model(tensors(folder, {"__metadata__": {"pivq_jax": "[" + "{}," * count + "{}]"}}))


@case("a prior", "depth = 16384 must be at least 1 and at most 128", "deep prior", 16_384)
@case("a prior", "does not hold the weights of its prior", "large prior", 1, slow=True)
def _(folder: Path, depth: int) -> Callable[[], object]:
    from pivq_jax.interop.pretrained import read_prior
    from pivq_jax.sampling import CodeSpace

    sizes = {"pivq_jax_prior": json.dumps({"width": 8, "depth": depth, "heads": 1, "bits": 1.0})}
    header = {"__metadata__": sizes, "a": array("F32", [5 * 2**30], 0, HUGE)}
    path = tensors(folder, header, HUGE)
    return lambda: read_prior(path, CodeSpace(3, 8))


@case("parents", "numbers, more than 16,777,216", "parents")
def _(folder: Path) -> Callable[[], object]:
    from pivq_jax.interop.pretrained import read_parents
    from pivq_jax.sampling import CodeSpace

    path = tensors(folder, {"codes": array("U8", [10 * 2**30, 2], 0, HUGE)}, HUGE)
    return lambda: read_parents(path, CodeSpace(3, 8))


@case("parents", "a name has 1,000,000 characters", "factors", slow=True)
def _(folder: Path) -> Callable[[], object]:
    from pivq_jax.interop.pretrained import read_parents
    from pivq_jax.sampling import CodeSpace

    held = {"pivq_jax_factors": json.dumps({"a" * 10**6: ["b"]})}
    arrays = {"codes": array("U8", [1, 3], 0, 3), "labels": array("U8", [1, 1], 3, 4)}
    path = tensors(folder, {"__metadata__": held, **arrays}, 4)
    return lambda: read_parents(path, CodeSpace(3, 8, "nearest"))


@case("LPIPS weights", "does not hold these weights", "weights of LPIPS")
def _(folder: Path) -> Callable[[], object]:
    from pivq_jax.losses.lpips_weights import load_lpips

    path = tensors(folder, {"heads": array("F32", [5 * 2**30], 0, HUGE)}, HUGE)
    return lambda: load_lpips("alex", path)


# JSON.


@case("config.json", "more than 8,388,608 bytes", "a sparse config", 0)
@case("config.json", "is damaged", "a config of objects", 2**23 // 3 - 1, slow=True)
def _(folder: Path, count: int) -> Callable[[], object]:
    from pivq_jax.config.check import read_config

    if count:
        (folder / "config.json").write_text("[" + "{}," * (count - 1) + "{}]")
    else:
        sparse(folder / "config.json", b"{")
    return lambda: read_config(folder)


@case("a request of the page", "no JSON object", "a request of objects", slow=True)
def _(folder: Path) -> Callable[[], object]:
    from pivq_jax.explore import server

    body = b"[" + b"{}," * ((server.MAX_JSON - 6) // 3) + b"{}]"
    return lambda: server._object(body)


def main(name: str, folder: str) -> None:
    from pivq_jax.common.errors import InputError

    signal.alarm(600)  # ends what would read for ever
    read = CASES[name].craft(Path(folder))
    before = peak_memory(reset=True)
    try:
        read()
        print("read")
    except InputError as error:
        print(error)
    print(peak_memory() - before)
