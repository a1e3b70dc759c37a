"""Storage of prepared data sets: records, metadata and locations.

A data set NAME at S pixels is the directory NAME/Spx. It contains array_record files of tf.Example
messages (`image`, a PNG file, and one integer per factor), the metadata with which
tensorflow-datasets opens it, and `prepared.json`, which describes its origin.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeVar

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import read_object, write_json

P = TypeVar("P", bound=PurePath)  # pathlib and etils.epath paths

_VERSION = "1.0.0"
MANIFEST = "prepared.json"

# Keys of a batch that are not factors.
RESERVED = ("image", "mask")


def set_directory(root: P, name: str, image_size: int) -> P:
    """Returns the directory of a data set, `{root}/{name}/{image_size}px`."""
    return root / name / f"{image_size}px"


def find_directory(root: Any, name: str, image_size: int) -> Any:
    """Returns the directory of a data set of this or else the next larger size, or None."""
    names = (path.parent.name for path in (root / name).glob(f"*px/{MANIFEST}"))
    sizes = [int(match[1]) for match in (re.fullmatch(r"(\d+)px", n) for n in names) if match]
    larger = [size for size in sizes if size >= image_size]
    return set_directory(root, name, min(larger)) if larger else None


def encode(png: bytes, factors: Mapping[str, int]) -> bytes:
    """Serializes a PNG file and its factors to a tf.Example message; deterministic."""
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(png)
    for name, value in factors.items():
        feature[name].int64_list.value.append(value)
    return example.SerializeToString(deterministic=True)


def features_of(record: bytes) -> Any:
    """Parses a tf.Example message; tensorflow-datasets takes five times as long for 40 factors."""
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(record).features.feature


def write_metadata(
    directory: Path,
    name: str,
    image_size: int,
    factors: Mapping[str, Sequence[str]],
    shard_lengths: Mapping[str, Sequence[int]],
    shard_bytes: Mapping[str, int],
    manifest: Mapping[str, Any],
    card: Mapping[str, str],
) -> None:
    """Writes the files needed to open the shards in `directory`; the manifest is written last.

    Lengths and bytes are those of records. The card is for `tfds.core.DatasetInfo`.
    """
    import tensorflow_datasets as tfds
    from etils import epath
    from tensorflow_datasets.core import dataset_info, file_adapters, naming, splits

    image = tfds.features.Image(shape=(image_size, image_size, 3), encoding_format="png")
    labels = {n: tfds.features.ClassLabel(names=list(values)) for n, values in factors.items()}
    identity = dataset_info.DatasetIdentity(
        name=name,
        version=tfds.core.Version(_VERSION),
        data_dir=os.fspath(directory),
        module_name="pivq_jax.data.prepare",
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        **{"description": f"{name}, {image_size} x {image_size} pixels.", **card},
        features=tfds.features.FeaturesDict({"image": image, **labels}),
        disable_shuffling=True,
    )
    info.set_file_format(file_adapters.FileFormat.ARRAY_RECORD)
    infos = [
        splits.SplitInfo(
            name=split,
            shard_lengths=list(lengths),
            num_bytes=shard_bytes[split],
            filename_template=naming.ShardedFileTemplate(
                data_dir=epath.Path(directory),
                dataset_name=name,
                split=split,
                filetype_suffix="array_record",
            ),
        )
        for split, lengths in shard_lengths.items()
    ]
    info.set_splits(splits.SplitDict(infos))
    info.write_to_directory(directory)
    named = {factor: list(values) for factor, values in factors.items()}
    write_json(directory / MANIFEST, {**manifest, "factors": named})


def read_manifest(directory: Path) -> dict[str, Any]:
    """Reads `prepared.json`, which names each image that was skipped."""
    manifest = read_object(directory / MANIFEST, most=2**28)
    if not {"factors", "images", "skipped"} <= manifest.keys():
        raise InputError(
            f"the prepared data in {directory} is damaged ({MANIFEST}): delete that directory and"
            " prepare it again"
        )
    return manifest
