"""The toon_faces builder: contents, caching and concurrent builds."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data import load_toon_faces, toon_faces, toon_render
from pivq_jax.data.images import load_image
from pivq_jax.data.toon_faces import prepared_faces

SIZES = {"train": 12, "validation": 4, "test": 4}
BUILD = """
import sys
from pivq_jax.data import load_toon_faces
data = load_toon_faces(32, data_dir=sys.argv[1], sizes={'train': 12, 'validation': 4, 'test': 4})
print(len(data.train), int(sum(data.test[i]['image'].sum(dtype='int64') for i in range(4))))
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def faces(data_dir):
    return load_toon_faces(32, data_dir=data_dir, sizes=SIZES)


def start_build(data_dir: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", BUILD, str(data_dir)]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env)


def finished(data_dir: Path) -> list[Path]:
    found = data_dir.glob("toon_faces/*/prepared.json")
    return [path.parent for path in found if not path.parent.name.startswith(".")]


def test_images_and_labels_are_those_of_the_seeds(faces, tmp_path):
    assert faces.image_size == 32
    assert faces.factors == toon_render.FACTORS
    for split, count in SIZES.items():
        source = getattr(faces, split)
        assert len(source) == count
        for index, seed in enumerate(toon_render.face_seeds(split, count)):
            example = source[index]
            png, factors = toon_render.render_face(seed, 32)
            named = {name: faces.factors[name][example[name]] for name in faces.factors}
            assert named == factors
            (tmp_path / "face.png").write_bytes(png)
            np.testing.assert_array_equal(example["image"], load_image(tmp_path / "face.png", 32))
            assert example["image"].dtype == np.uint8


def test_out_of_range_is_an_index_error(faces):
    for index in (-1, SIZES["test"]):
        with pytest.raises(IndexError, match="of 4"):
            faces.test[index]


def test_prepared_data_is_opened_without_drawing(faces, data_dir, monkeypatch):
    def draw(*args, **kwargs):
        raise AssertionError("drawn again")

    monkeypatch.setattr(toon_render, "render_face", draw)
    monkeypatch.setattr(toon_render, "check_renderer", draw)
    again = load_toon_faces(32, data_dir=data_dir, sizes=SIZES)
    np.testing.assert_array_equal(again.train[5]["image"], faces.train[5]["image"])


def test_the_whole_splits_have_their_own_name(tmp_path, monkeypatch):
    monkeypatch.setattr(toon_faces, "build", lambda target, *_, **__: target)
    assert prepared_faces(64, tmp_path).name == "64px-1.0.0"
    assert prepared_faces(64, tmp_path, dict(toon_render.SPLIT_SIZES)).name == "64px-1.0.0"
    assert prepared_faces(48, tmp_path, {"train": 9}).name == "48px-1.0.0-9-1000-1000"


def test_the_card_credits_the_artist(faces, data_dir):
    (directory,) = finished(data_dir)
    card = (directory / "dataset_info.json").read_text()
    assert "Johan Melin" in card
    assert "CC BY 4.0" in (directory / "LICENSE").read_text()


@pytest.mark.parametrize("size", [8, 2048])
def test_image_sizes_have_limits(size, tmp_path):
    with pytest.raises(InputError, match=f"image_size is {size}: choose one from 16 to 1024"):
        load_toon_faces(size, data_dir=tmp_path)


def test_two_builds_at_once_give_one_whole_data_set(tmp_path):
    builds = [start_build(tmp_path) for _ in range(2)]
    outputs = [build.communicate(timeout=120) for build in builds]
    assert [build.returncode for build in builds] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert outputs[0][0].startswith("12 ")
    assert len(finished(tmp_path)) == 1
    drawn = [errors for _, errors in outputs if "drawing" in errors]
    assert len(drawn) == 1
    assert all("tensorflow" not in errors.lower() for _, errors in outputs)
