"""What is built from a config."""

import collections
import shutil

import numpy as np
import pytest
from PIL import Image

from pivq_jax.common.errors import InputError
from pivq_jax.config import load_config
from pivq_jax.training.build import dataset_from_config


def test_the_images_of_a_person_are_in_one_split(tmp_path, monkeypatch):
    monkeypatch.setenv("PIVQ_DATA_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "aligned"
    folder.mkdir()
    people = 40
    for person in range(people):
        for number in range(3):
            image = np.full((8, 8, 3), person * 6, np.uint8)
            Image.fromarray(image).save(folder / f"Person_{person}_{number:04}.png")
    config = load_config("faces").with_fields(
        {"data.path": str(folder), "data.image_size": 8, "model.patch_size": 8}
    )
    dataset = dataset_from_config(config)
    counts = collections.Counter(
        (name, int(split[i]["image"][0, 0, 0]) // 6)
        for name, split in vars(dataset).items()
        if name in ("train", "validation", "test")
        for i in range(len(split))
    )
    assert len(counts) == people and set(counts.values()) == {3}


def test_too_few_images_are_all_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("PIVQ_DATA_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "few"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(folder / f"{number}.png")
    config = load_config("image_folder").with_fields(
        {"data.path": str(folder), "data.image_size": 8, "model.patch_size": 8}
    )
    with pytest.raises(InputError, match=r"few has 3 images, only 1 of them for training"):
        dataset_from_config(config)


def test_processes_with_other_images_are_refused_in_every_mode(
    tiny_config, small_folder, tmp_path, second_process
):
    other = shutil.copytree(small_folder, tmp_path / "other")
    pixels = np.asarray(Image.open(other / "0.png")).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(other / "0.png")
    first, second = (
        lambda path=path: dataset_from_config(tiny_config.with_fields({"data.path": str(path)}))
        for path in (small_folder, other)
    )
    second_process(first, first)
    with pytest.raises(InputError, match=r"process 1 has data = .* images, digest .*: copy the"):
        second_process(first, second)
