"""The door: names, paths, the cache directory, and what importing costs."""

import dataclasses
import os
import resource
import subprocess
import sys

import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data import NAMES, load_dataset, sources, toon_faces
from pivq_jax.data.sources import RecordSource
from tests.data.conftest import examples


def test_random_is_seeded_distinct_and_labelled():
    data, again = (load_dataset("random", image_size=16) for _ in range(2))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [512, 128, 128]
    assert data.factors == {"shade": ("dark", "light")}
    for index in (0, 1, 127):
        example = data.test[index]
        assert example["image"].shape == (16, 16, 3) and example["image"].dtype == np.uint8
        np.testing.assert_array_equal(example["image"], again.test[index]["image"])
        assert (example["image"].mean() > 127) == bool(example["shade"])
        assert not np.array_equal(example["image"], data.train[index]["image"])
    with pytest.raises(IndexError, match="image 128 of 128"):
        data.test[128]


def test_other_images_or_labels_are_another_identity():
    data = load_dataset("random", image_size=16)
    first, *rest = examples(data.train)

    def identity(*train):
        return dataclasses.replace(data, train=train).identity

    assert identity(first, *rest) == data.identity  # wherever they lie
    brighter = first["image"].copy()
    brighter[3, 4, 1] ^= 1
    others = {
        identity({**first, "image": brighter}, *rest),
        identity({**first, "shade": 1 - first["shade"]}, *rest),
        identity(first, *rest[:-1]),
        data.identity,
    }
    assert len(others) == 4


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match="unknown data set 'mnist'") as caught:
        load_dataset("mnist", image_size=32)
    assert all(name in str(caught.value) for name in NAMES)


def test_what_is_not_there_or_not_prepared_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PIVQ_DATA_DIR", str(tmp_path))
    (tmp_path / "image_folder" / "8px").mkdir(parents=True)
    (tmp_path / "image_folder" / "8px" / "prepared.json").write_text("{}")
    command = "python -m pivq_jax.data.prepare --dataset=lfw --source=DIR --size=64"
    for name, size, path, message in (
        ("lfw", 0, tmp_path, "image_size is 0: it must be at least"),
        ("image_folder", 64, "", "image_folder needs .* --config.data.path=DIR"),
        ("image_folder", 16, tmp_path, "prepared at smaller sizes than 16 pixels: prepare"),
        ("lfw", 64, "", f" in {tmp_path}: run `{command}`, where"),
        ("lfw", 64, tmp_path, f" in {tmp_path}: run `{command} --output={tmp_path}`, where"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            load_dataset(name, image_size=size, path=path)
        assert "\n" not in str(caught.value)


def test_the_cache_directory_comes_from_the_environment(small_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PIVQ_DATA_DIR", str(tmp_path / "elsewhere"))
    load_dataset("image_folder", image_size=8, path=small_folder)
    assert len(list((tmp_path / "elsewhere").rglob("dataset_info.json"))) == 1


def test_small_splits_are_decoded_once_and_large_ones_every_time(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(toon_faces, "SPLIT_SIZES", dict.fromkeys(toon_faces.SPLIT_SIZES, 8))
    builder = tfds.builder_from_directory(toon_faces.prepare_faces(32, tmp_path))
    kept = RecordSource(builder, "train", 32)
    streamed = RecordSource(builder, "train", 32, memory_limit=8 * 32 * 32 * 3 - 1)
    assert kept[1]["image"] is kept[1]["image"]
    assert streamed[1]["image"] is not streamed[1]["image"]
    assert kept[1] is not kept[1]
    np.testing.assert_array_equal(kept[1]["image"], streamed[1]["image"])
    with pytest.raises(ValueError, match="read-only"):
        kept[1]["image"][0] = 0


def test_importing_is_light_and_nothing_imports_tensorflow():
    code = """
import sys
from pivq_jax.data import load_dataset
print([m for m in ('jax', 'grain', 'tensorflow_datasets', 'PIL.Image') if m in sys.modules])
from pivq_jax.data import toon_faces
toon_faces.render_face(toon_faces.face_seeds('test', 1)[0], 32)
print([m for m in ('jax', 'grain', 'tensorflow_datasets') if m in sys.modules])
import pivq_jax.data.image_folder, pivq_jax.data.pipeline
print('tensorflow' in sys.modules)
"""
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert found.stdout.split("\n")[:3] == ["[]", "[]", "False"]


INFINITE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("now", "most", "granted", "expected"),
    [
        (1024, 2**20, 2**20, 65_536),
        (1024, 4096, 4096, 4096),
        (256, INFINITE, 61_440, 10_240),  # macOS
        (2**17, INFINITE, INFINITE, 2**17),
    ],
)
def test_as_many_files_may_be_open_as_the_system_grants(monkeypatch, now, most, granted, expected):
    limits = [now, most]

    def set_limit(what, wanted):
        if wanted[0] > granted:
            raise ValueError("current limit exceeds maximum limit")
        limits[:] = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda what: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    sources._allow_open_files()
    assert limits == [expected, most]
