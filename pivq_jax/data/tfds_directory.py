"""Any data set that tensorflow-datasets has prepared, with one image per example."""

import importlib.util
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import is_remote
from pivq_jax.data.records import RESERVED, features_of
from pivq_jax.data.sources import RecordSource, Source, Subset
from pivq_jax.data.splits import SPLITS, split_of
from pivq_jax.data.tree import existing_directory

_INFO = "dataset_info.json"
PREPARE_AGAIN = "prepare it again with tensorflow-datasets"

# Records of a split that are read to find factors without labels, in about a second: this number,
# or as many as have so many bytes, but not less than a few hundred.
_INSPECTED, _BYTES_INSPECTED, _LEAST_INSPECTED = 2**14, 2**28, 2**8


def open_directory(
    path: str, image_size: int
) -> tuple[dict[str, Source], dict[str, tuple[str, ...]]]:
    """Opens a data set that tensorflow-datasets has prepared: its splits and the values of factors.

    ClassLabel features become factors, unless an image of those inspected has no label. A missing
    validation or test split is 10 % of the training images, by a hash of their index.
    """
    import tensorflow_datasets as tfds

    if not path:
        raise InputError(
            "tfds needs the directory of a data set that tensorflow-datasets has prepared: give it"
            " as --config.data.path=DIR"
        )
    directory = _find(path)
    builder = tfds.builder_from_directory(directory)
    _check_format(builder, directory)
    image, factors = _features(builder.info.features, directory)

    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    present = [split for split in SPLITS if counts.get(split)]
    if "train" not in present:
        raise InputError(
            f"{directory} has no split named train: its splits are {', '.join(counts)}"
        )
    opened = [RecordSource(builder, split, image_size, remedy=PREPARE_AGAIN) for split in present]
    unlabelled = {name for part in opened for name in _unlabelled(part, factors)}
    if unlabelled:  # such as the labels of a test split that only a server knows
        logging.warning("%s: %s ignored, as some images have none", directory, sorted(unlabelled))
        factors = {name: values for name, values in factors.items() if name not in unlabelled}
    splits: dict[str, Source] = {
        split: RecordSource(builder, split, image_size, tuple(factors), image, PREPARE_AGAIN)
        for split in present
    }
    return _with_missing(splits), factors


def _find(path: str) -> Path:
    if is_remote(path):
        raise InputError(f"{path} is remote: copy the data set to a local disk, for random access")
    root = existing_directory(path, f"the one that contains {_INFO}")
    datasets = [root] if (root / _INFO).exists() else sorted(p.parent for p in root.rglob(_INFO))
    if not datasets:
        raise InputError(f"no {_INFO} in {root}: give a data set of tensorflow-datasets")
    if len(datasets) > 1:
        some = ", ".join(map(str, datasets[:3]))
        raise InputError(
            f"{root} contains {len(datasets)} data sets: give one of them, such as {some}"
        )
    return datasets[0]


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

    images = [name for name, each in features.items() if isinstance(each, tfds.features.Image)]
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


def _unlabelled(split: RecordSource, factors: Collection[str]) -> set[str]:
    """The factors of which some image, of those inspected, has no value."""
    most = max(_LEAST_INSPECTED, _BYTES_INSPECTED // len(bytes(split.records[0])))
    indices = np.unique(np.linspace(0, len(split) - 1, min(most, _INSPECTED)).astype(int))
    unlabelled = set()
    for index in indices if factors else ():
        features = features_of(bytes(split.records[int(index)]))
        unlabelled |= {name for name in factors if features[name].int64_list.value[0] < 0}
    return unlabelled


def _with_missing(splits: dict[str, Source]) -> dict[str, Source]:
    """Adds the splits that are missing, cut from the training images."""
    missing, train = [split for split in SPLITS if split not in splits], splits["train"]
    if not missing:
        return splits
    # The indices of the images whose hash puts them into a split; the others remain in training.
    members: dict[str, list[int]] = {split: [] for split in ("train", *missing)}
    for index in range(len(train)):
        split = split_of(f"{index}")
        members[split if split in missing else "train"].append(index)
    if not all(members.values()):
        raise InputError(f"{len(train)} training images are too few to cut off {missing}")
    return {**splits, **{split: Subset(train, indices) for split, indices in members.items()}}
