"""Any data set that tensorflow-datasets has prepared, with one image per example."""

import importlib.util
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import expanded, is_remote
from pivq_jax.data.images import decode_image
from pivq_jax.data.records import RESERVED
from pivq_jax.data.sources import Cached, Example, Source, Subset
from pivq_jax.data.splits import SPLITS, share

_INFO = "dataset_info.json"

# Labels of this number of images per split, evenly spaced, are read to find factors without labels.
_INSPECTED = 256


class TfdsSplit(Cached):
    """A split of a data set of tensorflow-datasets; the central square of images is resized."""

    def __init__(
        self, builder: Any, split: str, image: str, factors: Mapping[str, Any], image_size: int
    ) -> None:
        from tensorflow_datasets import decode

        raw = decode.DeserializeMethod.RAW_BYTES
        self._records = builder.as_data_source(split, deserialize_method=raw)
        self._split, self._image, self._factors = split, image, tuple(factors)
        super().__init__(image_size)

    def __len__(self) -> int:
        return len(self._records)

    def labels(self, index: int) -> dict[str, int]:
        """Returns the labels of an image."""
        feature = self._features(index)
        return {name: feature[name].int64_list.value[0] for name in self._factors}

    def read(self, index: int) -> Example:
        """See `Cached`."""
        feature = self._features(index)
        file = io.BytesIO(feature[self._image].bytes_list.value[0])
        image = decode_image(file, self._size, name=f"{index} of {self._split}")
        return {"image": image, **self.labels(index)}

    def _features(self, index: int) -> Any:
        from tensorflow_datasets.proto import tf_example_pb2

        return tf_example_pb2.Example.FromString(bytes(self._records[index])).features.feature


def open_directory(
    path: str | os.PathLike[str], image_size: int
) -> tuple[dict[str, Source], dict[str, tuple[str, ...]]]:
    """Opens a data set that tensorflow-datasets has prepared: its splits and the values of factors.

    `path` has `dataset_info.json`, or contains a single such directory. It must have one image
    feature; its ClassLabel features become factors, and other features are ignored. Grey images
    become RGB, and the central square is resized, as in `image_folder`. A missing validation or
    test split is 10 % of the training images, selected by a hash of their index.
    """
    import tensorflow_datasets as tfds

    directory = _find(path)
    builder = tfds.builder_from_directory(directory)
    _check_format(builder, directory)
    image, factors = _features(builder.info.features, directory)
    parts: dict[str, Any] = {
        split: TfdsSplit(builder, split, image, factors, image_size)
        for split in SPLITS
        if split in builder.info.splits and builder.info.splits[split].num_examples
    }
    if "train" not in parts:
        raise InputError(
            f"{directory} has no split named train: its splits are {', '.join(builder.info.splits)}"
        )
    unlabelled = {name for part in parts.values() for name in _unlabelled(part)}
    if unlabelled:  # such as the labels of a test split that only a server knows
        logging.warning("%s: %s ignored, as some images have none", directory, sorted(unlabelled))
        factors = {name: values for name, values in factors.items() if name not in unlabelled}
        parts = {s: TfdsSplit(builder, s, image, factors, image_size) for s in parts}
    splits: dict[str, Source] = _cut(parts)
    return splits, factors


def _find(path: str | os.PathLike[str]) -> Path:
    if is_remote(os.fspath(path)):
        raise InputError(f"{path} is remote: copy the data set to a local disk, for random access")
    root = expanded(path)
    if not root.is_dir():
        raise InputError(f"no directory {root}: give the one that contains {_INFO}")
    found = [root] if (root / _INFO).exists() else sorted(p.parent for p in root.rglob(_INFO))
    if not found:
        raise InputError(f"no {_INFO} in {root}: give a data set of tensorflow-datasets")
    if len(found) > 1:
        some = ", ".join(map(str, found[:3]))
        raise InputError(
            f"{root} contains {len(found)} data sets: give one of them, such as {some}"
        )
    return found[0]


def _check_format(builder: Any, directory: Path) -> None:
    from tensorflow_datasets.core.file_adapters import FileFormat

    if not builder.info.available_file_formats() & FileFormat.with_random_access():
        raise InputError(
            f"the files in {directory} are in the format {builder.info.file_format.value}, which"
            " only TensorFlow can read: where it is installed, run `tfds convert_format"
            f" --dataset_version_dir={directory} --out_file_format=array_record`"
        )
    parquet = builder.info.file_format == FileFormat.PARQUET
    if parquet and importlib.util.find_spec("pyarrow") is None:
        raise InputError(f"the files in {directory} are in the format parquet: pip install pyarrow")


def _features(features: Any, directory: Path) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Returns the name of the image feature, and the names of the values of each label."""
    import tensorflow_datasets as tfds

    images = [
        name for name, feature in features.items() if isinstance(feature, tfds.features.Image)
    ]
    if len(images) != 1:
        raise InputError(
            f"the data set in {directory} has {len(images)} image features"
            f" ({', '.join(sorted(images or features))}): it must have one"
        )
    if features[images[0]].np_dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"the images in {directory} are of type {np.dtype(features[images[0]].np_dtype)}: they"
            " must be uint8 or uint16"
        )
    factors = {
        name: tuple(feature.names)
        for name, feature in features.items()
        if isinstance(feature, tfds.features.ClassLabel) and name not in RESERVED
    }
    return images[0], factors


def _unlabelled(split: TfdsSplit) -> set[str]:
    indices = np.unique(np.linspace(0, len(split) - 1, _INSPECTED).astype(int))
    labels = [split.labels(int(index)) for index in indices]
    return {name for each in labels for name, value in each.items() if value < 0}


def _cut(parts: dict[str, Any]) -> dict[str, Source]:
    """Cuts missing splits from the training images."""
    missing = [split for split in SPLITS if split not in parts]
    if not missing:
        return parts
    train = parts["train"]
    shares = np.array([share(f"{index}") for index in range(len(train))])
    of = {"validation": (shares >= 80) & (shares < 90), "test": shares >= 90}
    left = np.ones(len(train), bool)
    for split in missing:
        left &= ~of[split]
        parts[split] = Subset(train, np.flatnonzero(of[split]))
    parts["train"] = Subset(train, np.flatnonzero(left))
    for split in SPLITS:
        if not len(parts[split]):
            raise InputError(f"{len(train)} training images are too few to cut off {missing}")
    return parts
