"""Storage of prepared data sets: records and locations.

A data set NAME at S pixels is the directory NAME/Spx. It contains array_record files of tf.Example
messages (`image`, a PNG file, and one integer per factor), the metadata with which
tensorflow-datasets opens it, and `prepared.json`, which describes its origin.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, TypeVar

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import read_object

P = TypeVar("P", bound=PurePath)  # pathlib and etils.epath paths

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


def read_manifest(directory: Path) -> dict[str, Any]:
    """Reads `prepared.json`, which names each image that was skipped."""
    manifest = read_object(directory / MANIFEST, most=2**28)
    if not {"factors", "images", "skipped"} <= manifest.keys():
        raise InputError(
            f"the prepared data in {directory} is damaged ({MANIFEST}): delete that directory and"
            " prepare it again"
        )
    return manifest
