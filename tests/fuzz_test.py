"""Damaged and hostile files end in a result or in one `InputError`, soon, in bounded memory.

The cases are mutations of valid files: of their bytes, and of the parts inside of what would refuse
most of them (checksums, lengths), so that they reach deep. They are the same in every run.
"""

import collections
import functools
import hashlib
import io
import json
import os
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from pivq_jax import codec
from pivq_jax.codec import container
from pivq_jax.common.errors import InputError
from pivq_jax.common.parallel import make_mesh
from pivq_jax.common.pickles import read_torch_file
from pivq_jax.config import Config
from pivq_jax.config.check import check_config, config_of_model, read_config
from pivq_jax.config.description import KEY
from pivq_jax.data import image_folder, images, layouts
from pivq_jax.inference import TrainedModel
from pivq_jax.interop import safetensors_file
from pivq_jax.sampling.prior import SetPrior
from tests.codec.priors import random_prior
from tests.memory import peak_memory
from tests.mutations import (
    OPCODES,
    Change,
    changes,
    mutate,
    mutate_text,
    mutate_tree,
    with_checksums,
)

QUICK, THOROUGH = 20, 10_000  # cases


def explore(
    count: int, strategy: Any, read: Callable[[Any], Any], most: tuple[int, int] = (5, 2**30)
) -> None:
    """Reads many cases: an error must be an `InputError` of one line of printable characters.

    `most` is what they may take: seconds of the processor for one, bytes above those at the start.
    """
    outcomes: collections.Counter[str] = collections.Counter()

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        print_blob=True,
        phases=[Phase.explicit, Phase.generate, *[Phase.shrink] * (count > QUICK)],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def case(value: Any) -> None:
        started = time.process_time()
        try:
            read(value)
            outcomes["read"] += 1
        except InputError as error:
            assert str(error).isprintable(), repr(str(error))
            outcomes["refused"] += 1
        assert time.process_time() - started < most[0]

    start = peak_memory(reset=True)
    case()
    grown = peak_memory() - start
    print(f"{sum(outcomes.values()):,} cases: {dict(outcomes)}, {grown / 2**20:.0f} MiB more")
    assert grown < most[1], f"{grown:,} bytes"
    assert outcomes["refused"] and (outcomes["read"] or count <= QUICK)


def thorough() -> Any:
    """Parametrizes a test by its number of cases."""
    counts = [QUICK, pytest.param(THOROUGH, marks=pytest.mark.slow)]
    return pytest.mark.parametrize("count", counts, ids=["quick", "thorough"])


@functools.cache
def tiny() -> dict[str, Any]:
    """Values of the config of a tiny model."""
    sizes = {"data.image_size": 8, "model.patch_size": 4, "model.num_codes": 2}
    sizes |= {"model.code_dim": 2, "model.width": 4, "model.heads": 1}
    return Config().with_fields(sizes).to_dict()


@thorough()
def test_config_json(count, tmp_path):
    whole = json.dumps(tiny(), indent=2).encode()
    as_tree = changes.map(lambda made: json.dumps(mutate_tree(tiny(), made)).encode())
    as_bytes = changes.map(lambda made: mutate(whole, made, whole[::-1], b'[{}],:"\\u0129eE-.tfn'))
    nested = st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"", b"{}", b"[]", b"1" * 5000])

    def read(content: bytes) -> None:
        (tmp_path / "config.json").write_bytes(content)
        config = config_of_model(read_config(tmp_path), "config.json")
        check_config(config, training=False)

    explore(count, as_tree | as_tree | as_bytes | nested, read)


@thorough()
def test_safetensors(count, tmp_path, monkeypatch):
    expected = {"a": {"kernel": np.zeros((2, 3), np.float32), "bias": np.zeros(3, np.float32)}}
    monkeypatch.setattr(safetensors_file, "model_shapes", lambda config, origin: expected)
    description = {"config": tiny(), "step": 900, "progress": {}, "metrics": {"psnr": 20.0}}
    packed = safetensors_file.pack_model(expected, description)
    (tmp_path / "whole.safetensors").write_bytes(packed)
    whole = (tmp_path / "whole.safetensors").read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8:length]), whole[length:]

    def assemble(made: Any) -> bytes:
        """A file whose length fits; of the header, of the description, or of both."""
        outer, inner, dtype = made
        changed = mutate_tree(header, outer)
        metadata = changed.get("__metadata__")
        if inner and isinstance(metadata, dict):
            metadata[KEY] = json.dumps(mutate_tree(description, inner))
        if dtype and isinstance(changed.get("a.bias"), dict):
            changed["a.bias"]["dtype"] = dtype
        text = json.dumps(changed).encode()
        return struct.pack("<Q", len(text)) + text + data

    dtypes = st.sampled_from(
        ["", "", "F8_E4M3", "F8_E5M2", "BF16", "I32", "F64", "C64", "BOOL", "F4"]
    )
    as_tree = st.tuples(changes | st.just([]), changes | st.just([]), dtypes).map(assemble)
    as_bytes = changes.map(lambda made: mutate(whole, made, whole[::-1]))
    deep = st.sampled_from(["[" * 100_000, '{"config":' * 100_000]).map(
        lambda text: safetensors.numpy.save({}, {KEY: text})
    )
    path = tmp_path / "case.safetensors"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        safetensors_file.read_model(path)

    explore(count, as_tree | as_tree | as_bytes | deep, read)


@thorough()
def test_torch_files(count, tmp_path):
    tensors = {
        "w": torch.arange(6.0).reshape(2, 3),
        "n": torch.tensor(3),
        "v": torch.ones(4).half(),
    }
    tensors["row"] = tensors["w"].T[1]
    wholes = []
    for zipped in (True, False):
        torch.save(tensors, tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
        wholes.append((tmp_path / "whole.pth").read_bytes())
    with zipfile.ZipFile(io.BytesIO(wholes[0])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = members["whole/data.pkl"]

    def assemble(made: list[Change]) -> bytes:
        """An archive with right checksums around a damaged pickle."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in members.items():
                changed = (
                    mutate(content, made, wholes[1], OPCODES) if content is pickled else content
                )
                archive.writestr(name, changed)
        return file.getvalue()

    as_pickle = changes.map(assemble)
    as_bytes = st.builds(
        lambda which, made: mutate(wholes[which], made, wholes[1 - which], OPCODES),
        st.integers(0, 1),
        changes,
    )
    path = tmp_path / "case.pth"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        read_torch_file(path, "fetch it")

    explore(count, as_pickle | as_bytes, read)


@pytest.fixture
def folder(tmp_path) -> Path:
    """CelebA's lists for six images; the images themselves are empty."""
    names = [f"{i + 1:06d}.jpg" for i in range(6)]
    (tmp_path / "img_align_celeba").mkdir()
    for name in names:
        (tmp_path / "img_align_celeba" / name).touch()
    rows = ["6", "5_o_Clock_Shadow Hat", *(f"{name} -1  1" for name in names)]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(rows))
    splits = [f"{name} {split}" for name, split in zip(names, (0, 0, 0, 0, 1, 2), strict=True)]
    (tmp_path / "list_eval_partition.txt").write_text("\n".join(splits))
    mapping = ["idx orig_idx orig_file", *(f"{i} {i} {name}" for i, name in enumerate(names))]
    (tmp_path / "mapping.txt").write_text("\n".join(mapping))
    return tmp_path


@thorough()
def test_lists_of_attributes(count, folder):
    names = sorted(os.listdir(folder / "img_align_celeba"))
    table = "name,hat,age\n" + "".join(f"{name},{i % 2},{7 * i}\n" for i, name in enumerate(names))
    files = ["list_attr_celeba.txt", "list_eval_partition.txt", "mapping.txt", "table.csv"]
    (folder / "table.csv").write_text(table)
    wholes = {file: (folder / file).read_bytes() for file in files}

    def damage(which: str, made: list[Change], as_text: bool) -> tuple[str, bytes]:
        separator = "," if which.endswith(".csv") else " "
        if as_text:
            text = mutate_text(wholes[which].decode(), made, separator)
            return which, text.encode(errors="surrogateescape")
        return which, mutate(wholes[which], made, wholes["table.csv"], b',"\n\r\x00 \xff')

    def read(case: tuple[str, bytes]) -> None:
        which, content = case
        (folder / which).write_bytes(content)
        try:
            if which == "table.csv":
                image_folder.list_folder(folder / "img_align_celeba", folder / which)
            elif which == "mapping.txt":
                layouts.read_mapping(folder / which)
            else:
                layouts.celeba(folder)
        finally:
            (folder / which).write_bytes(wholes[which])

    which = st.sampled_from([*files, "table.csv", "table.csv"])
    explore(count, st.builds(damage, which, changes, st.booleans()), read)


@thorough()
def test_archives_of_images(count, folder):
    names = sorted(os.listdir(folder / "img_align_celeba"))
    picture = io.BytesIO()
    Image.new("RGB", (178, 218), "red").save(picture, "JPEG", quality=1)
    root = folder / "img_align_celeba.zip"
    wholes = []
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", kind) as archive:
            for name in names:
                archive.writestr(f"img_align_celeba/{name}", picture.getvalue())
        wholes.append(file.getvalue())
    for name in names:
        (folder / "img_align_celeba" / name).unlink()
    (folder / "img_align_celeba").rmdir()

    def damage(which: int, made: list[Change], at_end: bool) -> bytes:
        content = wholes[which]
        start = content.index(b"PK\x01\x02") * at_end  # the directory, where most sizes stand
        return content[:start] + mutate(content[start:], made, wholes[which - 1])

    def read(content: bytes) -> None:
        root.write_bytes(content)
        layouts._archive.cache_clear()
        listing = layouts.celeba(folder)
        for entry in listing.splits["validation"]:
            layouts.read_image(os.fspath(listing.root), 8, 0, listing.shape, entry)

    explore(count, st.builds(damage, st.integers(0, 1), changes, st.booleans()), read)
    layouts._archive.cache_clear()


@thorough()
def test_files_of_codes(count, tmp_path):
    config = Config.from_dict(tiny())
    shapes = safetensors_file.model_shapes(config)
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    path, wholes, size = tmp_path / "case.pivq", [], config.quantizer.codebook_size
    prior = random_prior(SetPrior(size, width=8, depth=1, heads=1))
    prior.params["logits"]["bias"][:20] += 5
    model = TrainedModel(config, make_mesh(), params, step=1, progress={}, prior=prior)
    codes = np.sort(
        np.random.default_rng(0).permuted(np.tile(np.arange(20), (500, 1)), axis=1)[:, :2]
    )
    for code, written in (("fixed", 500), ("prior", 20)):
        names = [f"{i}/a.png" for i in range(written)]
        codec.write(path, model, codes[:written], names, code)
        wholes.append(path.read_bytes())
        assert container.parse(wholes[-1], "").code == code
    levels = wholes[1][35:]

    def damage(which: int, made: list[Change], part: str) -> bytes:
        """A file with a right checksum, damaged in its bytes, in its list or in its codes."""
        if part == "bytes":
            body = mutate(wholes[which][:-8], made, levels)
            return body + hashlib.sha256(body).digest()[:8]
        whole = container.parse(wholes[which], "")
        if part == "data":
            return container.pack(whole._replace(data=mutate(whole.data, made, levels)))
        (length,) = struct.unpack(">I", wholes[which][31:35])
        listed = zlib.decompress(wholes[which][35 : 35 + length])
        listed = zlib.compress(mutate(listed, made, levels, b"\0/.\xff"), 1)
        body = wholes[which][:31] + struct.pack(">I", len(listed)) + listed + whole.data
        return body + hashlib.sha256(body).digest()[:8]

    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = codec.read(path, model).codes
        assert found.min() >= 0 and found.max() < size and np.all(np.diff(found) > 0)

    parts = st.sampled_from(["bytes", "data", "data", "list"])
    explore(count, st.builds(damage, st.integers(0, 1), changes, parts), read)


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged metadata
@thorough()
def test_images(count):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    forms: list[tuple[str, str, dict[str, Any]]] = [
        *[("PNG", mode, {}) for mode in ("RGB", "RGBA", "P", "1", "I;16", "LA")],
        *[("JPEG", mode, {"exif": exif}) for mode in ("RGB", "L", "CMYK")],
        *[("TIFF", mode, {}) for mode in ("RGB", "F", "I;16", "1")],
        *[("TIFF", "RGB", {"compression": c}) for c in ("tiff_lzw", "jpeg", "tiff_adobe_deflate")],
        *[("GIF", "P", {}), ("BMP", "RGB", {}), ("PPM", "RGB", {}), ("WEBP", "RGBA", {})],
        *[("JPEG", "RGB", {"progressive": True}), ("PNG", "RGB", {"exif": exif})],
    ]
    if "AVIF" in images.FORMATS:
        forms.append(("AVIF", "RGB", {"speed": 10}))
    wholes = []
    for form, mode, options in forms:
        file = io.BytesIO()
        image = Image.fromarray(pixels)
        image = image.convert("L").convert(mode) if mode in ("I;16", "F") else image.convert(mode)
        image.save(file, form, **options)
        wholes.append(file.getvalue())

    def damage(which: int, made: list[Change], fixed: bool) -> bytes:
        changed = mutate(wholes[which], made, wholes[which - 1])
        return with_checksums(changed) if fixed else changed

    def read(content: bytes) -> None:
        assert images.decode_image(io.BytesIO(content), 8, name="case").shape == (8, 8, 3)

    cases = st.builds(damage, st.integers(0, len(wholes) - 1), changes, st.booleans())
    explore(count, cases, read, (20, 2**32))  # Pillow allows 179 million pixels
