"""toon_faces: its builder (contents, caching, concurrent builds); faces that are fixed for ever."""

import hashlib
import importlib.metadata
import importlib.resources
import io
import json
import platform

import numpy as np
import pytest
from PIL import Image

from pivq_jax.common.errors import InputError
from pivq_jax.data import load_dataset, toon_faces

# SHA-256 of the pixels of the first two faces of train, validation and test.
PIXELS_SHA256 = {
    32: "aafa7109d5a3caffe96e6b7cc07555c92240b448b24eeb273eafab69e7d076b8",
    128: "922c6741ae51d5819961687f8e19d7ca609ead16a6417526dd16c8db2cbccf5c",
}

# SHA-256 of the factors of all faces of a split, as DiceBear spells them.
FACTORS_SHA256 = {
    "train": "24cb7904d6c9650769f306525f687ddeef6e7e28ca7723a203af3d2369da49e8",
    "test": "3b70e8f56774c50a55be3af838b82b562c646e0ef73421ed21fc9492107e5db7",
}

SIZES = {"train": 12, "validation": 8, "test": 8}  # the renderer is checked by eight of each
BUILD = """
from pivq_jax.data import load_dataset, toon_faces
toon_faces.SPLIT_SIZES = {sizes}
data = load_dataset("toon_faces", image_size=32, data_dir={data_dir!r})
print(len(data.train), int(sum(data.test[i]['image'].sum(dtype='int64') for i in range(8))))
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def faces(data_dir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toon_faces, "SPLIT_SIZES", SIZES)
        return load_dataset("toon_faces", image_size=32, data_dir=data_dir)


def drawn(seed, size):
    return np.asarray(Image.open(io.BytesIO(toon_faces.render_face(seed, size))))


def test_images_and_labels_are_those_of_the_seeds(faces):
    assert faces.image_size == 32 and faces.factors == toon_faces.FACTORS
    for split, count in SIZES.items():
        source = getattr(faces, split)
        assert len(source) == count
        for index, seed in enumerate(toon_faces.face_seeds(split, count)):
            example = source[index]
            named = {name: faces.factors[name][example[name]] for name in faces.factors}
            assert named == toon_faces.face_factors(seed)
            np.testing.assert_array_equal(example["image"], drawn(seed, 32))
    for index in (-1, SIZES["test"]):
        with pytest.raises(IndexError, match="of 8"):
            faces.test[index]


def test_prepared_data_credits_the_artist_and_is_opened_without_drawing(
    faces, data_dir, monkeypatch
):
    (directory,) = (path.parent for path in data_dir.glob("toon_faces/*/prepared.json"))
    assert "Johan Melin" in (directory / "dataset_info.json").read_text()
    assert "CC BY 4.0" in (directory / "LICENSE").read_text()
    monkeypatch.delattr(toon_faces, "check_renderer")
    monkeypatch.delattr(toon_faces, "render_face")
    again = load_dataset("toon_faces", image_size=32, data_dir=data_dir)
    np.testing.assert_array_equal(again.train[5]["image"], faces.train[5]["image"])


@pytest.mark.parametrize("size", [8, 2048])
def test_image_sizes_have_limits(size, tmp_path):
    with pytest.raises(InputError, match=f"image_size is {size}: choose one from 16 to 1024"):
        load_dataset("toon_faces", image_size=size, data_dir=tmp_path)


def test_two_builds_at_once_give_one_whole_data_set(commands, tmp_path):
    code = BUILD.format(sizes=SIZES, data_dir=str(tmp_path))
    done = [build.wait() for build in [commands.start(code=code) for _ in range(2)]]
    assert [build.code for build in done] == [0, 0], done
    assert done[0].stdout == done[1].stdout
    assert done[0].stdout.startswith("12 ")
    assert len(list(tmp_path.glob("toon_faces/*/prepared.json"))) == 1
    drawn = [build.stderr for build in done if "drawing" in build.stderr]
    assert len(drawn) == 1 and "once for all commands" in drawn[0]
    assert all("tensorflow" not in build.stderr.lower() for build in done)


@pytest.mark.parametrize("split", ["test", pytest.param("train", marks=pytest.mark.slow)])
def test_factors_are_the_known_ones(split):
    spelled = {ours: theirs for theirs, ours in toon_faces.SPELLED.items()}
    digest = hashlib.sha256()
    for seed in toon_faces.face_seeds(split):
        values = [spelled.get(value, value) for value in toon_faces.face_factors(seed).values()]
        digest.update(json.dumps(values).encode() + b"\n")
    assert digest.hexdigest() == FACTORS_SHA256[split]


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="antialiasing may round otherwise"
)
@pytest.mark.parametrize("size", PIXELS_SHA256)
def test_pixels_are_the_known_ones(size):
    digest = hashlib.sha256()
    for split in toon_faces.SPLIT_SIZES:
        for seed in toon_faces.face_seeds(split, 2):
            digest.update(drawn(seed, size))
    assert digest.hexdigest() == PIXELS_SHA256[size]


def test_seeds_are_all_but_those_that_would_repeat_a_face():
    for twin, earlier in ((1344, "test/329"), (3651, "train/2076"), (8638, "validation/801")):
        assert twin in toon_faces.TWINS
        repeated = toon_faces.face_factors(f"toon_faces/train/{twin}")
        assert repeated == toon_faces.face_factors(f"toon_faces/{earlier}")
    whole = toon_faces.face_seeds("train")
    assert toon_faces.face_seeds("train", 2000) == whole[:2000]
    assert len(whole) == len(set(whole)) == 10_000
    assert "toon_faces/train/1344" not in whole


def test_factors_name_all_that_the_style_can_draw():
    file = importlib.resources.files("dicebear_styles") / "toon-head.json"
    style = json.loads(file.read_text("utf-8"))
    for name, values in toon_faces.FACTORS.items():
        if name.endswith("_color"):
            assert list(values) == style["colors"][name.removesuffix("_color")]["values"]
        else:
            component = style["components"]["rearHair" if name == "rear_hair" else name]
            absent = ["none"] if component.get("probability", 100) < 100 else []
            drawn = [toon_faces.SPELLED.get(value, value) for value in component["variants"]]
            assert list(values) == absent + drawn


def test_another_or_a_missing_renderer_is_refused_with_the_remedy(monkeypatch):
    remedy = r"pip install dicebear-core==10.7.0 dicebear-styles==10.6.0"
    toon_faces.check_renderer()
    with monkeypatch.context() as patch:
        patch.setattr(toon_faces, "FINGERPRINT", "0" * 64)
        with pytest.raises(InputError, match=f"versions are the pinned ones.*{remedy}"):
            toon_faces.check_renderer()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.0")
    with pytest.raises(InputError, match=f"dicebear-core 99.0.*{remedy}"):
        toon_faces.check_renderer()

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(InputError, match=f"not installed: {remedy}"):
        toon_faces.check_renderer()
