"""Files that claim or hold more than any of use: `main` makes and reads one.

It prints the error, and the bytes of memory that the parser took. A process of its own reads each:
memory that was used before would hide what is used again.
"""

import hashlib
import json
import os
import pickle
import signal
import struct
import zipfile
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
MIB = 2**20
HUGE = 20 * 2**30


class Everything:
    """A container that has whatever is asked for."""

    def __contains__(self, value: object) -> bool:
        return True


def case(parser: str, message: str, name: str, *arguments: Any, slow: bool = False) -> Any:
    """Adds a case whose file is made by the decorated function with these arguments."""

    def add(function: Callable[..., Callable[[], object]]) -> Callable[..., Callable[[], object]]:
        CASES[name] = Case(parser, message, lambda folder: function(folder, *arguments), slow)
        return function

    return add


# Files of codes.


def read_codes(path: Path, **sizes: int) -> Callable[[], object]:
    import numpy as np

    from pivq_jax.codec.files import open_file
    from pivq_jax.config.fields import Config
    from pivq_jax.sampling import CodeSpace

    class Model:
        config = Config()
        space = CodeSpace.of(config)
        params: Any = {"codebook": np.zeros(1, np.float32)}  # noqa: RUF012

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


@case("codec.read", "", "sets of 4,096 of 65,536 codes", 4_096, 65_536, 2)
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

    import numpy as np

    from pivq_jax import codec
    from pivq_jax.codec.container import Contents, pack
    from pivq_jax.config.fields import Config
    from pivq_jax.sampling import CodeSpace

    fields = {"model.num_codes": num_codes, "quantizer.codebook_size": size}
    params = {"codebook": np.zeros(1, np.float32)}
    config = Config().with_fields(fields)
    model: Any = SimpleNamespace(config=config, params=params, space=CodeSpace(num_codes, size))
    names = tuple(f"{i}.png" for i in range(count))
    data = bytes(count * model.space.bytes_per_image)
    head = ("matching", "fixed", codec.fingerprint(params), num_codes, size, config.data.image_size)
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


@case("a model", "a is unexpected", "model")
def _(folder: Path) -> Callable[[], object]:
    from pivq_jax.config.fields import Config

    config = Config().with_fields({"data.image_size": 8, "model.patch_size": 4})
    held = {"pivq_jax": json.dumps({"config": config.to_dict()})}
    header = {"__metadata__": held, "a": array("F32", [5 * 2**30], 0, HUGE)}
    return read_model(tensors(folder, header, HUGE))


@case("a model", "header of 30,", "header", 10**7)
@case("a model", "does not say what model it is", "header of JSON", 10**6, slow=True)
def _(folder: Path, count: int) -> Callable[[], object]:
    return read_model(tensors(folder, {"__metadata__": {"pivq_jax": "[" + "{}," * count + "{}]"}}))


@case("a prior", "depth = 16384 must be at least 1 and at most 128", "deep prior", 16_384)
@case("a prior", "does not hold the weights of its prior", "large prior", 1, slow=True)
def _(folder: Path, depth: int) -> Callable[[], object]:
    import jax.numpy as jnp

    from pivq_jax.interop.pretrained import read_prior
    from pivq_jax.sampling import CodeSpace

    sizes = {"pivq_jax_prior": json.dumps({"width": 8, "depth": depth, "heads": 1, "bits": 1.0})}
    header = {"__metadata__": sizes, "a": array("F32", [5 * 2**30], 0, HUGE)}
    path = tensors(folder, header, HUGE)
    return lambda: read_prior(path, CodeSpace(3, 8), jnp.zeros((8, 2)))


@case("parents", "numbers, more than 16,777,216", "parents", "codes")
@case("parents", "numbers, more than 16,777,216", "parents as ranks", "ranks", slow=True)
def _(folder: Path, name: str) -> Callable[[], object]:
    from pivq_jax.interop.pretrained import read_parents
    from pivq_jax.sampling import CodeSpace

    path = tensors(folder, {name: array("U8", [10 * 2**30, 2], 0, HUGE)}, HUGE)
    return lambda: read_parents(path, CodeSpace(3, 8))


@case("parents", "a name has 1,000,000 characters", "factors")
def _(folder: Path) -> Callable[[], object]:
    from pivq_jax.interop.pretrained import read_parents
    from pivq_jax.sampling import CodeSpace

    held = {"pivq_jax_factors": json.dumps({"a" * 10**6: ["b"]})}
    arrays = {"ranks": array("U8", [1, 1], 0, 1), "labels": array("U8", [1, 1], 1, 2)}
    path = tensors(folder, {"__metadata__": held, **arrays}, 2)
    return lambda: read_parents(path, CodeSpace(3, 8))


@case("LPIPS weights", "does not hold these weights", "weights of LPIPS")
def _(folder: Path) -> Callable[[], object]:
    from pivq_jax.losses.perceptual import load_lpips

    path = tensors(folder, {"heads": array("F32", [5 * 2**30], 0, HUGE)}, HUGE)
    return lambda: load_lpips("alex", path)


@case("a state dict", "more than 201,326,592", "weights of Inception")
def _(folder: Path) -> Callable[[], object]:
    from pivq_jax.evaluation.inception import load_inception

    path = tensors(folder, {"fc.weight": array("F32", [5 * 2**30], 0, HUGE)}, HUGE)
    return lambda: load_inception(path)


# Pickles.


@case("a pickle of arrays", "more than 67,108,864 bytes", "a sparse pickle")
def _(folder: Path) -> Callable[[], object]:
    return read_pickle(sparse(folder / "file", b"\x80\x04B" + struct.pack("<I", 2**32 - 1)))


@case("a pickle of arrays", "holds a bytes, which is not an array", "a pickle of one array")
def _(folder: Path) -> Callable[[], object]:
    (folder / "file").write_bytes(pickle.dumps({"a": bytes(2**26 - 1_000)}))
    return read_pickle(folder / "file")


@case("a pickle of arrays", "more than 60,000 opcodes", "a pickle of numbers", slow=True)
def _(folder: Path) -> Callable[[], object]:
    (folder / "file").write_bytes(pickle.dumps({"a": list(range(10**6))}))
    return read_pickle(folder / "file")


def read_pickle(path: Path) -> Callable[[], object]:
    from pivq_jax.common.pickles import read_numpy_pickle

    return lambda: read_numpy_pickle(path, "fetch it")


def read_torch(path: Path) -> Callable[[], object]:
    from pivq_jax.common.pickles import read_torch_file

    return lambda: read_torch_file(path, "fetch it")


@case("a PyTorch file", "not a whole PyTorch state dict", "a sparse file of PyTorch")
def _(folder: Path) -> Callable[[], object]:
    return read_torch(sparse(folder / "file", b"\x80\x02\x8a" + b"B" + struct.pack("<I", 2**31)))


@case("a PyTorch file", "files, more than 20,000", "an archive of many members", slow=True)
def _(folder: Path) -> Callable[[], object]:
    return read_torch(archive(folder / "file", 60_000))


@case("a PyTorch file", "more than 201,326,592", "tensors of one storage", 20_000, 2**20, slow=True)
@case("a PyTorch file", "", "as large tensors as there may be", 48, 2**20, slow=True)
def _(folder: Path, count: int, size: int) -> Callable[[], object]:
    import torch

    tensor = torch.zeros(size)
    if count < 100:
        torch.save({str(i): tensor + i for i in range(count)}, folder / "file")
    else:
        torch.save({str(i): tensor for i in range(200)}, folder / "file")
    return read_torch(folder / "file")


# Archives and lists of data sets.


def archive(path: Path, members: int) -> Path:
    """An archive whose directory names as many files as asked for, all of them the same one."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", *[20] * 2, *[0] * 4, *[0] * 8, 0, 0)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(entry) * members, 0, 0)
    path.write_bytes(entry * members + end)
    return path


def read_celeba(folder: Path) -> Callable[[], object]:
    from pivq_jax.data import layouts

    for name in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        if not (folder / name).exists():
            (folder / name).write_text("".join(f"{i}.jpg {i}\n" for i in range(3)))
    (folder / "img_align_celeba").mkdir(exist_ok=True)
    return lambda: layouts.celeba(folder)


@case("an archive of images", "files, more than 250,000", "a few too many images", 300_000)
@case("an archive of images", "too many for 250,000 files", "too many images", 2_000_000, slow=True)
@case("an archive of images", "", "as many images as there may be", 250_000, slow=True)
def _(folder: Path, members: int) -> Callable[[], object]:
    from pivq_jax.data import layouts

    path = archive(folder / "img_align_celeba.zip", members)
    return lambda: layouts._files(path)


@case("an archive of images", "not a complete zip archive", "a directory of zeros")
def _(folder: Path) -> Callable[[], object]:
    from pivq_jax.data import layouts

    path = folder / "img_align_celeba.zip"
    path.write_bytes(bytes(2**20))
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 2**32 - 2, 0, 0)
    os.truncate(path, 2**32 - 2)
    with path.open("ab") as file:
        file.write(end)
    return lambda: layouts._files(path)


@case("an archive of images", "cannot read image", "a member that claims little")
def _(folder: Path) -> Callable[[], object]:
    from pivq_jax.data.builder import Entry
    from pivq_jax.data.layouts import FileRecipe

    path = folder / "img_align_celeba.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made, made.open("a.jpg", "w") as file:
        for _ in range(400):
            file.write(bytes(MIB))
    content = bytearray(path.read_bytes())
    start = content.rindex(b"PK\1\2") + 24
    content[start : start + 4] = struct.pack("<I", 1_000)
    path.write_bytes(content)
    recipe = FileRecipe(os.fspath(path), 8, 0, (178, 218), ())
    return lambda: recipe.make(Entry("a.jpg", "", ()))


@case("a list of CelebA", "characters", "a list of one line")
def _(folder: Path) -> Callable[[], object]:
    sparse(folder / "list_eval_partition.txt", b"000001.jpg 0\n")
    return read_celeba(folder)


@case(
    "a list of CelebA", "more than 218,103,808 bytes", "a list of many images", 8_000_000, slow=True
)
@case("a list of CelebA", "does not begin", "as many images in a list", 1_500_000, slow=True)
def _(folder: Path, count: int) -> Callable[[], object]:
    with (folder / "list_eval_partition.txt").open("w") as file:
        file.writelines(f"{i} {i % 3}\n" for i in range(count))
    return read_celeba(folder)


@case("a list of CelebA", "names 30,000 attributes", "a list of many names", 30_000, 2, slow=True)
@case("a list of CelebA", "does not give", "a list of many values", 1_000, 20_000, slow=True)
def _(folder: Path, names: int, images: int) -> Callable[[], object]:
    from pivq_jax.data import tables

    with (folder / "list").open("w") as file:
        file.write(f"{images}\n" + " ".join(f"{i:x}" for i in range(names)) + "\n")
        file.writelines(f"{i} {'1 ' * names}\n" for i in range(images - 1))
        file.write("last 1\n")
    return lambda: tables.read_attributes(folder / "list")


def read_table(folder: Path, *parts: str, repeat: int = 1, size: int = 0) -> Callable[[], object]:
    from pivq_jax.data import tables

    first, *others = parts
    with (folder / "file").open("w") as file:
        file.write(first)
        for i in range(repeat):
            file.writelines(part.replace("#", str(i)) for part in others)
    if size:
        os.truncate(folder / "file", size)
    return lambda: tables.read_csv(folder / "file", Everything())


@case("a table", "has a line of more than 262,144 characters", "a table of one line", "name,a\n")
@case(
    "a table",
    "has a line of more than 262,144 characters",
    "a table in quotes",
    'name,"\n',
    slow=True,
)
def _(folder: Path, start: str) -> Callable[[], object]:
    return read_table(folder, start, size=HUGE)


@case("a table", "has a line of more than", "a row of many lines", slow=True)
def _(folder: Path) -> Callable[[], object]:
    return read_table(folder, "name,a\n", '"\n",', repeat=10**6)


@case("a table", "names 90,000 attributes, more than 1,024", "a table of many names")
def _(folder: Path) -> Callable[[], object]:
    return read_table(folder, "name" + ",a" * 90_000)


@case("a table", "more than 256 values of a", "a table of long values", slow=True)
def _(folder: Path) -> Callable[[], object]:
    return read_table(folder, "name,a\n", "#.png," + "b" * 10_000 + "#\n", repeat=300)


@case("a table", "more than 218,103,808 bytes", "a table of many images", 4 * 10**6, slow=True)
@case("a table", "", "as many images in a table", 1_500_000, slow=True)
def _(folder: Path, count: int) -> Callable[[], object]:
    return read_table(folder, "name,a\n", "#,b\n", repeat=count)


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


# Images. The size of each is as large as it may be, or a little larger.


def read_image(path: Path) -> Callable[[], object]:
    from pivq_jax.data.images import load_image

    return lambda: load_image(path, 16)


def picture(path: Path, mode: str, width: int, height: int, **options: Any) -> Path:
    """Saves a picture, by a process of its own, since that takes memory, too."""
    from PIL import Image

    if os.fork() == 0:
        color: Any = 0 if mode in ("L", "P", "F", "I;16") else (1, 2, 3, 4)[: 4 - (mode == "RGB")]
        Image.new(mode, (width, height), color).save(path, **options)
        os._exit(0)
    os.wait()
    return path


PROGRESSIVE = {"progressive": True, "subsampling": 0, "quality": 50}


@case("PNG", "", "png", "a.png", "RGB", 6_500, 4_100, slow=True)
@case("PNG", "", "png with alpha", "a.png", "RGBA", 5_200, 5_200, slow=True)
@case("PNG", "pixels are more", "a large png", "a.png", "L", 50_000, 1_000)
@case("JPEG", "", "jpeg", "a.jpg", "RGB", 6_500, 4_100, slow=True)
@case("JPEG", "", "a large jpeg", "a.jpg", "RGB", 12_000, 9_000, slow=True)
@case("JPEG", "", "jpeg of four colours", "a.jpg", "CMYK", 6_000, 4_000, PROGRESSIVE, slow=True)
@case("JPEG", "pixels are more", "a large one", "a.jpg", "CMYK", 6_000, 5_000, PROGRESSIVE)
@case("WebP", "", "webp", "a.webp", "RGBA", 3_300, 3_300, slow=True)
@case("WebP", "pixels are more", "a large webp", "a.webp", "RGB", 8_192, 6_144, slow=True)
@case("AVIF", "", "avif", "a.avif", "RGBA", 3_300, 3_300, {"speed": 10}, slow=True)
@case("GIF", "", "gif", "a.gif", "P", 5_200, 5_200, slow=True)
@case("BMP", "", "bmp", "a.bmp", "RGB", 5_200, 5_200, slow=True)
@case("PPM", "", "ppm", "a.ppm", "RGB", 5_200, 5_200, slow=True)
@case("TIFF", "", "tiff of floats", "a.tif", "F", 5_000, 5_000, slow=True)
@case(
    "TIFF",
    "pixels are more",
    "a tiff of one strip",
    "a.tif",
    "RGB",
    5_200,
    5_200,
    {"compression": "tiff_adobe_deflate", "tiffinfo": {278: 5_200}},
    slow=True,
)
def _(
    folder: Path, name: str, mode: str, width: int, height: int, options: dict | None = None
) -> Callable[[], object]:
    return read_image(picture(folder / name, mode, width, height, **options or {}))


@case("JPEG", "", "a photograph to align", slow=True)
def _(folder: Path) -> Callable[[], object]:
    from pivq_jax.data.images import decode_whole

    path = picture(folder / "a.png", "RGBA", 5_200, 5_200)
    return lambda: decode_whole(path, name="a")


@case("PNG", "bytes of metadata are more", "png of a long profile", b"iCCP", HUGE)
@case("PNG", "bytes of metadata are more", "png of much Exif", b"eXIf", 2**21, slow=True)
@case("PNG", "bytes of metadata are more", "png of private parts", b"abCd", 2**30, slow=True)
def _(folder: Path, kind: bytes, size: int) -> Callable[[], object]:
    path = picture(folder / "a.png", "RGB", 8, 8)
    content = path.read_bytes()[:-12]
    size = min(size, 2**31 - 1)
    sparse(path, content + struct.pack(">I4s", size, kind), len(content) + 12 + size)
    return read_image(path)


@case("PNG", "bytes of metadata are more", "png of texts", slow=True)
def _(folder: Path) -> Callable[[], object]:
    text = b"a\0\0" + zlib.compress(bytes(MIB))
    part = struct.pack(">I4s", len(text), b"zTXt") + text
    part += struct.pack(">I", zlib.crc32(part[4:]))
    path = picture(folder / "a.png", "RGB", 8, 8)
    content = path.read_bytes()
    path.write_bytes(content[:33] + part * 300 + content[33:])
    return read_image(path)


@case("JPEG", "come before its pixels", "jpeg of a long header", b"Exif\0\0")
@case("JPEG", "bytes of metadata are more", "jpeg of much Exif", b"Exif\0\0", 40, slow=True)
def _(folder: Path, start: bytes, count: int = 1_000) -> Callable[[], object]:
    path = picture(folder / "a.jpg", "RGB", 8, 8)
    content = path.read_bytes()
    numbers = struct.pack("<2sHIHHHII", b"II", 42, 8, 1, 0x128, 3, 2**19, 26)
    parts = [start + (numbers if i == 0 else b"") + b"\1\2" * 32_000 for i in range(count)]
    header = b"".join(b"\xff\xe1" + struct.pack(">H", 2 + len(part)) + part for part in parts)
    path.write_bytes(content[:2] + header + content[2:])
    return read_image(path)


@case("TIFF", "bytes of metadata are more", "tiff of many numbers", 2**21, slow=True)
@case("TIFF", "come before its pixels", "tiff of a long tag", 2**31)
def _(folder: Path, size: int) -> Callable[[], object]:
    path = folder / "a.tif"
    small = picture(path, "RGB", 8, 8).read_bytes()
    place = len(small)
    entry = struct.pack("<HHII", 65_000, 3, size // 2, place)
    start = int.from_bytes(small[4:8], "little")
    (count,) = struct.unpack_from("<H", small, start)
    table = small[start + 2 : start + 2 + 12 * count]
    content = bytearray(small + b"\0" * 2)
    content[4:8] = struct.pack("<I", place)
    content = content[:place] + struct.pack("<H", count + 1) + table + entry + bytes(4)
    sparse(path, bytes(content), len(content) + size)
    return read_image(path)


@case("WebP", "come before its pixels", "a sparse webp", b"RIFF\0\0\0\0WEBPVP8 ", "a.webp")
@case("AVIF", "come before its pixels", "a sparse avif", b"\0\0\0\x20ftypavif", "a.avif")
@case("GIF", "cannot read", "a sparse gif", b"GIF89a\1\0\1\0\0\0\0!\xfe", "a.gif", slow=True)
@case("BMP", "cannot read", "a sparse bmp", b"BM", "a.bmp")
@case("PPM", "", "a sparse ppm", b"P6 8 8 255 ", "a.ppm", slow=True)
def _(folder: Path, start: bytes, name: str) -> Callable[[], object]:
    return read_image(sparse(folder / name, start))


@case("WebP", "cannot read image", "a webp that claims a canvas")  # Pillow says why
def _(folder: Path) -> Callable[[], object]:
    size = (16_000 - 1).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + size
    (folder / "a.webp").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return read_image(folder / "a.webp")


@case("an upload", "", "an upload of many pixels", slow=True)
def _(folder: Path) -> Callable[[], object]:
    from pivq_jax.explore.engine import MAX_BYTES, read_image

    path = picture(folder / "a.png", "RGBA", 5_200, 5_200)
    content = path.read_bytes()
    assert len(content) < MAX_BYTES
    return lambda: read_image(content, 16)


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
