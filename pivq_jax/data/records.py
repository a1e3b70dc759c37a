"""Prepared data sets on disk: records, metadata and where they lie.

A data set NAME at S pixels is the directory NAME/Spx: array_record files of tf.Example messages
(`image`, a PNG file, and an integer a factor), the metadata by which tensorflow-datasets opens it,
and `prepared.json`, which says what it was made of.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeVar

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import as_path, write_json

P = TypeVar("P", bound=PurePath)  # pathlib's paths and etils.epath's

_VERSION = "1.0.0"
_MANIFEST = "prepared.json"

# Names that batches use for themselves.
RESERVED = ("image", "mask")


def set_directory(root: P, name: str, image_size: int) -> P:
    """Where a data set is kept below `root`."""
    return root / name / f"{image_size}px"


def prepared_sizes(root: Any, name: str) -> list[int]:
    """The image sizes at which a data set is prepared below `root`, a path; ascending."""
    names = (path.parent.name for path in (root / name).glob(f"*px/{_MANIFEST}"))
    return sorted(int(found[1]) for found in (re.fullmatch(r"(\d+)px", n) for n in names) if found)


def encode(png: bytes, factors: Mapping[str, int]) -> bytes:
    """A record; the same bytes for the same arguments."""
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(png)
    for name, value in factors.items():
        feature[name].int64_list.value.append(value)
    return example.SerializeToString(deterministic=True)


def decode(record: bytes) -> tuple[bytes, dict[str, int]]:
    """(PNG file, factors) of a record.

    tensorflow-datasets reads the same, in five times the time where there are 40 factors.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    feature = tf_example_pb2.Example.FromString(record).features.feature
    png = feature["image"].bytes_list.value[0]
    return png, {n: f.int64_list.value[0] for n, f in feature.items() if n != "image"}


def shard_name(name: str, split: str, index: int, count: int) -> str:
    """The file name of shard `index` of `count`, as tensorflow-datasets has it."""
    return f"{name}-{split}.array_record-{index:05d}-of-{count:05d}"


def write_metadata(
    directory: Path,
    name: str,
    image_size: int,
    factors: Mapping[str, Sequence[str]],
    shard_lengths: Mapping[str, Sequence[int]],
    shard_bytes: Mapping[str, int],
    manifest: Mapping[str, Any],
) -> None:
    """Writes what is needed to open the shards in `directory`; the manifest comes last.

    Args:
      directory: holds the shards, named by `shard_name`.
      name: of the data set.
      image_size: height and width in pixels.
      factors: the names of the values of each factor.
      shard_lengths: records in each shard of each split.
      shard_bytes: bytes of records in each split.
      manifest: what `read_manifest` is to return, besides the factors.
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
        description=f"{name}, {image_size} x {image_size} pixels.",
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
    write_json(directory / _MANIFEST, {**manifest, "factors": named})


def read_manifest(directory: Path) -> dict[str, Any]:
    """What `prepared.json` says.

    Raises:
      InputError: it is missing or damaged.
    """
    try:
        return json.loads((directory / _MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"the prepared data in {directory} is damaged ({_MANIFEST}: {error}): delete that "
            "directory and prepare it anew"
        ) from error


def fetch(remote: str, name: str, image_size: int, cache: Path) -> Path:
    """Copies a data set from remote storage such as gs://bucket/data, once; array_record files are
    read at random, and only from disk.

    The size is `image_size`, else the next larger one there.

    Returns:
      The directory below `cache` that is to `remote` what `output` was to `prepare`.
    """
    from pivq_jax.data.preparation import locked, progress

    local = cache / "fetched" / hashlib.sha256(remote.encode()).hexdigest()[:16]
    place: Any = as_path(remote)  # etils' paths, unlike pathlib's, can be copied
    try:
        sizes = [size for size in prepared_sizes(place, name) if size >= image_size]
    except ImportError as error:  # etils names the package that this kind of storage needs
        raise InputError(f"cannot open {remote}: {error}") from error
    if not sizes:
        return local
    source = set_directory(place, name, sizes[0])
    target = set_directory(local, name, sizes[0])
    with locked(target.with_name(f".{target.name}.lock"), f"{name} from {remote}"):
        if not target.exists():
            work = target.with_name(f".{target.name}.incomplete")
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            files = sorted(source.iterdir())
            for file in progress(files, f"copying {source}", len(files), unit=" files"):
                file.copy(work / file.name)
            work.rename(target)
    return local
