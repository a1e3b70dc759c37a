"""The faces are fixed for ever: seeds, factors, drawings and pixels."""

import hashlib
import importlib.metadata
import importlib.resources
import io
import json
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pivq_jax.common.errors import InputError
from pivq_jax.data import toon_render

# SHA-256 of the pixels of the first two faces of train, validation and test.
PIXELS_SHA256 = {
    32: "aafa7109d5a3caffe96e6b7cc07555c92240b448b24eeb273eafab69e7d076b8",
    64: "81b78713a9d3cb52c7aa4e17e6e3f592e69cfe3036ba17422f8f7e65058c7a23",
    128: "922c6741ae51d5819961687f8e19d7ca609ead16a6417526dd16c8db2cbccf5c",
}

# SHA-256 of the factors of all faces of a split, as DiceBear spells them.
FACTORS_SHA256 = {
    "train": "24cb7904d6c9650769f306525f687ddeef6e7e28ca7723a203af3d2369da49e8",
    "validation": "d614e1696fbda902f998f063673245cf96fc039a3fb5a71c826526d05e5f4bf5",
    "test": "3b70e8f56774c50a55be3af838b82b562c646e0ef73421ed21fc9492107e5db7",
}


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize(
    "split", [pytest.param("train", marks=pytest.mark.slow), "validation", "test"]
)
def test_factors_are_the_known_ones(split):
    drawn = {ours: theirs for theirs, ours in toon_render.SPELLED.items()}
    digest = hashlib.sha256()
    for seed in toon_render.face_seeds(split):
        values = [drawn.get(value, value) for value in toon_render.face_factors(seed).values()]
        digest.update(json.dumps(values).encode() + b"\n")
    assert digest.hexdigest() == FACTORS_SHA256[split]


@pytest.mark.parametrize(
    ("twin", "earlier"),
    [(1344, "test/329"), (2197, "validation/397"), (3651, "train/2076"), (8638, "validation/801")],
)
def test_a_seed_left_out_would_repeat_a_face(twin, earlier):
    assert twin in toon_render.TWINS
    repeated = toon_render.face_factors(f"toon_faces/train/{twin}")
    assert repeated == toon_render.face_factors(f"toon_faces/{earlier}")


def test_installed_packages_are_the_pinned_renderer():
    for name, version in toon_render.PINNED.items():
        assert importlib.metadata.version(name) == version
    assert toon_render.renderer_fingerprint() == toon_render.FINGERPRINT
    toon_render.check_renderer()


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="antialiasing may round otherwise"
)
@pytest.mark.parametrize("size", PIXELS_SHA256)
def test_pixels_are_the_known_ones(size):
    digest = hashlib.sha256()
    for split in toon_render.SPLIT_SIZES:
        for seed in toon_render.face_seeds(split, 2):
            digest.update(pixels(toon_render.render_face(seed, size)[0]).tobytes())
    assert digest.hexdigest() == PIXELS_SHA256[size]


def test_factors_name_all_that_the_style_can_draw():
    text = (
        importlib.resources.files("dicebear_styles").joinpath("toon-head.json").read_text("utf-8")
    )
    style = json.loads(text)
    for name, values in toon_render.FACTORS.items():
        if name.endswith("_color"):
            assert list(values) == style["colors"][name.removesuffix("_color")]["values"]
        else:
            component = style["components"]["rearHair" if name == "rear_hair" else name]
            absent = ["none"] if component.get("probability", 100) < 100 else []
            drawn = [toon_render.SPELLED.get(value, value) for value in component["variants"]]
            assert list(values) == absent + drawn


def test_faces_are_opaque_rgb_on_white():
    png, _ = toon_render.render_face(toon_render.face_seeds("train", 1)[0], 64)
    image = pixels(png)
    assert image.shape == (64, 64, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image[0, 0], [255, 255, 255])
    assert len(np.unique(image)) > 20


def test_a_shorter_split_is_the_start_of_the_whole():
    whole = toon_render.face_seeds("train")
    assert toon_render.face_seeds("train", 2000) == whole[:2000]
    assert len(whole) == len(set(whole)) == 10_000
    assert "toon_faces/train/1344" not in whole


@pytest.mark.parametrize(
    ("split", "count", "message"),
    [("dev", None, "unknown split 'dev'"), ("test", 1001, "1 to 1000"), ("test", 0, "1 to 1000")],
)
def test_seeds_refuse_what_is_not_there(split, count, message):
    with pytest.raises(InputError, match=message):
        toon_render.face_seeds(split, count)


def test_rendering_does_not_import_jax():
    code = (
        "import sys; from pivq_jax.data import toon_render as r;"
        "r.render_face(r.face_seeds('test', 1)[0], 32);"
        "print([m for m in ('jax', 'grain', 'tensorflow_datasets') if m in sys.modules])"
    )
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert found.stdout.strip() == "[]"


def test_another_renderer_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(toon_render, "FINGERPRINT", "0" * 64)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.0")
    with pytest.raises(InputError) as caught:
        toon_render.check_renderer()
    assert "dicebear-core 99.0" in str(caught.value)
    assert "pip install dicebear-core==10.7.0 dicebear-styles==10.6.0" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(InputError, match=r"dicebear-core, which is not installed: pip install"):
        toon_render.check_renderer()


@pytest.mark.slow
def test_all_faces_are_distinct():
    seeds = [seed for split in toon_render.SPLIT_SIZES for seed in toon_render.face_seeds(split)]
    assert len({tuple(toon_render.face_factors(seed).values()) for seed in seeds}) == 12_000
