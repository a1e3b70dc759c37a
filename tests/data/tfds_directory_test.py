"""Data sets that tensorflow-datasets has prepared: features, splits, formats."""

import io
import json
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from pivq_jax.common.errors import InputError
from pivq_jax.data import load_dataset, tfds_directory
from tests.data.conftest import examples


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
            unlabelled = split == "train" and index == self.unlabelled
            example = {
                **dict.fromkeys(self.pictures, file),
                "label": -1 if unlabelled else index % 2,
                "secret": index % 3 if split in self.with_secret else -1,
                "box": tfds.features.BBox(0.0, 0.0, 1.0, 1.0),
                "name": f"Jos\u00e9_{index:04d}",
            }
            yield index, example


class Gap(Digits):
    """As `Digits`, but one image of 300 has no label."""

    sizes = {"train": 300, "validation": 5, "test": 7}  # noqa: RUF012
    with_secret = ("train", "validation", "test")
    unlabelled = 41


class Pairs(Digits):
    pictures = ("left", "right")


class OnlyTest(Digits):
    sizes = {"test": 3}  # noqa: RUF012


class Few(Digits):
    sizes = {"train": 3}  # noqa: RUF012


class OnlyTrain(Digits):
    sizes = {"train": 60}  # noqa: RUF012


def make(builder_class, root):
    builder_class(data_dir=root, file_format="array_record").download_and_prepare()
    return root


def load(path):
    return load_dataset("tfds", image_size=8, path=path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make(Digits, tmp_path_factory.mktemp("tfds"))


def test_images_labels_and_splits(root, caplog):
    data = load(root)
    assert data.factors == {"label": ("even", "odd")}
    assert [r.getMessage() for r in caplog.records if "secret" in r.getMessage()]
    assert len(data.test) == 7 and 1 <= len(data.validation) <= 15
    parts = {"test": [data.test], "train": [data.train, data.validation]}
    for name, sources in parts.items():
        seen = []
        for example in (example for source in sources for example in examples(source)):
            assert example.keys() == {"image", "label"}
            assert example["image"].shape == (8, 8, 3) and example["image"].dtype == np.uint8
            grey = int(example["image"][4, 4, 0])
            assert (example["image"] == grey).all() and example["label"] == grey // 3 % 2
            seen.append(grey // 3)
        assert sorted(seen) == list(range(Digits.sizes[name]))
    assert load(root / "digits" / "1.0.0").identity == data.identity


def test_all_labels_count_if_every_split_has_them(tmp_path):
    data = load(make(OnlyTrain, tmp_path))
    assert data.factors == {"label": ("even", "odd"), "secret": ("0", "1", "2")}
    counts = [len(data.train), len(data.validation), len(data.test)]
    assert min(counts) >= 1 and sum(counts) == 60


def test_a_label_that_one_image_lacks_is_no_factor_or_refused(tmp_path, caplog, monkeypatch):
    make(Gap, tmp_path)
    assert load(tmp_path).factors == {"secret": ("0", "1", "2")}
    assert [r.getMessage() for r in caplog.records if "['label'] ignored" in r.getMessage()]
    monkeypatch.setattr(tfds_directory, "_INSPECTED", 2)  # now it is not found before
    train, path = load(tmp_path).train, tmp_path / "gap/1.0.0/features.json"
    message = f"of train has no value of 'label', .*: delete 'label' from {path}, and it is ignored"
    with pytest.raises(InputError, match=message):
        examples(train)
    features = json.loads(path.read_text())
    del features["featuresDict"]["features"]["label"]
    path.write_text(json.dumps(features))
    assert load(tmp_path).factors.keys() == {"secret"}
    assert all(each.keys() == {"image", "secret"} for each in examples(load(tmp_path).train))


def test_what_cannot_be_used_is_one_clear_error(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in (
        ("", "tfds needs the directory"),
        ("gs://bucket/digits", "is remote: copy"),
        (tmp_path / "empty", "no dataset_info.json in"),
        (make(Pairs, tmp_path / "a"), r"has 2 image features \(left, right\)"),
        (make(OnlyTest, tmp_path / "b"), "no split named train: its splits are test"),
        (tmp_path, "contains 3 data sets: give one of them"),
        (make(Few, tmp_path / "c"), "too few to cut off"),
    ):
        with pytest.raises(InputError, match=message):
            load(path)


def test_formats_that_need_tensorflow_and_damage_are_refused(root, tmp_path):
    digits = shutil.copytree(root / "digits" / "1.0.0", tmp_path / "digits")
    info = digits / "dataset_info.json"
    for file in digits.glob("*-test.*"):
        file.unlink()
    with pytest.raises(InputError, match=r"is damaged .*prepare it again with tensorflow-datasets"):
        load(digits)
    for file in digits.glob("*.array_record*"):
        file.rename(str(file).replace("array_record", "tfrecord"))
    info.write_text(json.dumps({**json.loads(info.read_text()), "fileFormat": "tfrecord"}))
    with pytest.raises(InputError, match=f"tfds convert_format --dataset_version_dir={digits}"):
        load(digits)
