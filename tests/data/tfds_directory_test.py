"""Data sets that tensorflow-datasets has prepared: features, splits, formats."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from pivq_jax.common.errors import InputError
from pivq_jax.data import load_dataset, tfds_directory


class Digits(tfds.core.GeneratorBasedBuilder):
    """Grey images of 12 x 10 pixels: a label, one that some splits lack, a bounding box, a text."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = {}  # noqa: RUF012
    sizes = {"train": 60, "test": 7}  # noqa: RUF012
    pictures = ("picture",)
    with_secret = ("train",)
    unlabelled = -1  # index of the training image without a label

    def _info(self):
        features = {
            **{name: tfds.features.Image(shape=(12, 10, 1)) for name in self.pictures},
            "label": tfds.features.ClassLabel(names=["even", "odd"]),
            "secret": tfds.features.ClassLabel(num_classes=3),
            "box": tfds.features.BBoxFeature(),
            "name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self.sizes}

    def _generate_examples(self, split):
        for index in range(self.sizes[split]):
            file = io.BytesIO()
            Image.new("L", (10, 12), 3 * index % 256).save(file, "PNG")
            file.seek(0)
            is_unlabelled = split == "train" and index == self.unlabelled
            yield (
                index,
                {
                    **dict.fromkeys(self.pictures, file),
                    "label": -1 if is_unlabelled else index % 2,
                    "secret": index % 3 if split in self.with_secret else -1,
                    "box": tfds.features.BBox(0.0, 0.0, 1.0, 1.0),
                    "name": f"Jos\u00e9_{index:04d}",
                },
            )


class Gap(Digits):
    """As `Digits`, but one image of 300 has no label."""

    sizes = {"train": 300, "validation": 5, "test": 7}  # noqa: RUF012
    with_secret = ("train", "validation", "test")
    unlabelled = 41


class Pairs(Digits):
    pictures = ("left", "right")


class OnlyTest(Digits):
    sizes = {"test": 3}  # noqa: RUF012


def make(builder_class, root):
    builder = builder_class(data_dir=root, file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    make(Digits, root)
    return root


@pytest.fixture
def digits(root, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(root / "digits" / "1.0.0", tmp_path / "digits")


@pytest.fixture(scope="module")
def gap(tmp_path_factory):
    return make(Gap, tmp_path_factory.mktemp("gap"))


def test_images_labels_and_splits(root, caplog):
    data = load_dataset("tfds", image_size=8, path=root)
    assert data.factors == {"label": ("even", "odd")}
    assert [r.getMessage() for r in caplog.records if "secret" in r.getMessage()]
    assert len(data.test) == 7 and len(data.train) + len(data.validation) == 60
    assert 1 <= len(data.validation) <= 15
    seen = {"test": [], "train": []}
    for name, split in (("test", data.test), ("train", data.train), ("train", data.validation)):
        for i in range(len(split)):
            example = split[i]
            assert example.keys() == {"image", "label"}
            assert example["image"].shape == (8, 8, 3) and example["image"].dtype == np.uint8
            grey = int(example["image"][4, 4, 0])
            assert (example["image"] == grey).all() and example["label"] == grey // 3 % 2
            seen[name].append(grey // 3)
    assert sorted(seen["test"]) == list(range(7)) and sorted(seen["train"]) == list(range(60))
    again = load_dataset("tfds", image_size=8, path=root / "digits" / "1.0.0")
    assert again.identity == data.identity


def test_all_labels_count_if_every_split_has_them(root, monkeypatch, tmp_path):
    monkeypatch.setattr(Digits, "sizes", {"train": 60})
    make(Digits, tmp_path)
    data = load_dataset("tfds", image_size=8, path=tmp_path)
    assert data.factors == {"label": ("even", "odd"), "secret": ("0", "1", "2")}
    assert min(len(data.test), len(data.validation)) >= 1
    assert len(data.train) + len(data.validation) + len(data.test) == 60


def test_a_label_that_one_image_lacks_is_no_factor(gap, caplog):
    data = load_dataset("tfds", image_size=8, path=gap)
    assert data.factors == {"secret": ("0", "1", "2")}
    assert [r.getMessage() for r in caplog.records if "['label'] ignored" in r.getMessage()]


def test_a_missing_label_that_was_not_looked_for_is_refused(gap, tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_directory, "_INSPECTED", 2)
    directory = shutil.copytree(gap, tmp_path / "gap")
    train = load_dataset("tfds", image_size=8, path=tmp_path).train
    with pytest.raises(InputError) as caught:
        for i in range(len(train)):
            train[i]
    message = str(caught.value)
    path = directory / "features.json"
    assert message.startswith("image ") and " of train has no value of 'label'" in message
    assert message.endswith(f": delete 'label' from {path}, and it is ignored")
    features = json.loads(path.read_text())
    del features["featuresDict"]["features"]["label"]
    path.write_text(json.dumps(features))
    data = load_dataset("tfds", image_size=8, path=tmp_path)
    assert data.factors.keys() == {"secret"}
    assert all(data.train[i].keys() == {"image", "secret"} for i in range(300))


def change(directory, **fields):
    path = directory / "dataset_info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_what_cannot_be_used_is_one_clear_error(root, tmp_path, monkeypatch):
    for path, message in (
        ("", "tfds needs the directory"),
        ("gs://bucket/digits", "is remote: copy"),
        (tmp_path / "nowhere", "no directory .*nowhere"),
        (tmp_path, "no dataset_info.json in"),
    ):
        with pytest.raises(InputError, match=message):
            load_dataset("tfds", image_size=8, path=path)
    make(Pairs, tmp_path / "a")
    with pytest.raises(InputError, match=r"has 2 image features \(left, right\)"):
        load_dataset("tfds", image_size=8, path=tmp_path / "a")
    make(OnlyTest, tmp_path / "b")
    with pytest.raises(InputError, match="no split named train: its splits are test"):
        load_dataset("tfds", image_size=8, path=tmp_path / "b")
    with pytest.raises(InputError, match="contains 2 data sets: give one of them"):
        load_dataset("tfds", image_size=8, path=tmp_path)
    with pytest.raises(InputError, match="too few to cut off"):
        monkeypatch.setattr(Digits, "sizes", {"train": 3})
        make(Digits, tmp_path / "c")
        load_dataset("tfds", image_size=8, path=tmp_path / "c")


def test_formats_that_need_tensorflow_are_refused_with_the_command(digits):
    for file in digits.glob("*.array_record*"):
        file.rename(str(file).replace("array_record", "tfrecord"))
    change(digits, fileFormat="tfrecord")
    with pytest.raises(InputError) as caught:
        load_dataset("tfds", image_size=8, path=digits)
    command = f"tfds convert_format --dataset_version_dir={digits}"
    assert command in str(caught.value) and "\n" not in str(caught.value)


def test_damage_is_named(digits):
    for file in digits.glob("*-test.*"):
        file.unlink()
    with pytest.raises(InputError, match=r"is damaged .*prepare it again with tensorflow-datasets"):
        load_dataset("tfds", image_size=8, path=digits)
