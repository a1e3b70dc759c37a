"""Storage of prepared data sets: records, metadata and locations.

A data set NAME at S pixels is the directory NAME/Spx. It contains array_record files of tf.Example
messages (`image`, a PNG file, and one integer per factor), the metadata with which
tensorflow-datasets opens it, and `prepared.json`, which describes its origin.
"""

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeVar

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import write_json

P = TypeVar("P", bound=PurePath)  # pathlib and etils.epath paths

_VERSION = "1.0.0"
MANIFEST = "prepared.json"

# Keys of a batch that are not factors.
RESERVED = ("image", "mask")


@dataclasses.dataclass(frozen=True)
class Card:
    """What `dataset_info.json` tells other programs and people about a data set."""

    description: str = ""  # text about the data
    citation: str = ""  # BibTeX entry
    homepage: str = ""  # address of its page
    licence: str | None = None  # terms of use; also written to the file LICENSE


NO_CARD = Card()


def set_directory(root: P, name: str, image_size: int) -> P:
    """Returns the directory of a data set, `{root}/{name}/{image_size}px`."""
    return root / name / f"{image_size}px"


def prepared_sizes(root: Any, name: str) -> list[int]:
    """Returns, ascending, the image sizes at which a data set is prepared in `root`."""
    names = (path.parent.name for path in (root / name).glob(f"*px/{MANIFEST}"))
    return sorted(int(match[1]) for match in (re.fullmatch(r"(\d+)px", n) for n in names) if match)


def encode(png: bytes, factors: Mapping[str, int]) -> bytes:
    """Serializes a PNG file and its factors to a tf.Example message; deterministic."""
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(png)
    for name, value in factors.items():
        feature[name].int64_list.value.append(value)
    return example.SerializeToString(deterministic=True)


def decode(record: bytes) -> tuple[bytes, dict[str, int]]:
    """Inverse of `encode`.

    tensorflow-datasets can read the same records, but with 40 factors takes five times as long.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    feature = tf_example_pb2.Example.FromString(record).features.feature
    png = feature["image"].bytes_list.value[0]
    return png, {n: f.int64_list.value[0] for n, f in feature.items() if n != "image"}


def shard_name(name: str, split: str, index: int, count: int) -> str:
    """Returns the file name of a shard, as used by tensorflow-datasets."""
    return f"{name}-{split}.array_record-{index:05d}-of-{count:05d}"


def read_split(directory: Path, name: str, split: str) -> Iterator[tuple[bytes, dict[str, int]]]:
    """Yields the PNG file and the factors of each record of a split, in order."""
    from array_record.python import array_record_module

    for shard in sorted(directory.glob(f"{name}-{split}.array_record-*")):
        reader = array_record_module.ArrayRecordReader(os.fspath(shard))
        yield from map(decode, reader.read_all())
        reader.close()


def write_metadata(
    directory: Path,
    name: str,
    image_size: int,
    factors: Mapping[str, Sequence[str]],
    shard_lengths: Mapping[str, Sequence[int]],
    shard_bytes: Mapping[str, int],
    manifest: Mapping[str, Any],
    card: Card = NO_CARD,
) -> None:
    """Writes the files needed to open the shards in `directory`; the manifest is written last.

    Lengths are numbers of records, and bytes those of records, of each split.
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
        description=card.description or f"{name}, {image_size} x {image_size} pixels.",
        citation=card.citation or None,
        homepage=card.homepage or None,
        license=card.licence,
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
    """Reads `prepared.json`."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        if not {"factors", "images", "skipped"} <= set(manifest):
            raise ValueError("it lacks entries")
        return manifest
    except (FileNotFoundError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"the prepared data in {directory} is damaged ({MANIFEST}: {error}): delete that "
            "directory and prepare it again"
        ) from error
