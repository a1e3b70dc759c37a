"""Storage of prepared data sets: records, metadata and locations.

A data set NAME at S pixels is the directory NAME/Spx. It contains array_record files of tf.Example
messages (`image`, a PNG file, and one integer per factor), the metadata with which
tensorflow-datasets opens it, and `prepared.json`, which describes its origin.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any, TypeVar

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import as_path, write_json
from pivq_jax.common.retry import retried

P = TypeVar("P", bound=PurePath)  # pathlib and etils.epath paths

_VERSION = "1.0.0"
_MANIFEST = "prepared.json"

# Keys of a batch that are not factors.
RESERVED = ("image", "mask")


@dataclasses.dataclass(frozen=True)
class Card:
    """What `dataset_info.json` tells other programs and people about a data set.

    Attributes:
        description: text about the data.
        citation: BibTeX entry.
        homepage: address of its page.
        licence: terms of use; also written to the file LICENSE.
    """

    description: str = ""
    citation: str = ""
    homepage: str = ""
    licence: str | None = None


NO_CARD = Card()


def set_directory(root: P, name: str, image_size: int) -> P:
    """Returns the directory of a data set, `{root}/{name}/{image_size}px`."""
    return root / name / f"{image_size}px"


def prepared_sizes(root: Any, name: str) -> list[int]:
    """Returns, ascending, the image sizes at which a data set is prepared in `root`."""
    names = (path.parent.name for path in (root / name).glob(f"*px/{_MANIFEST}"))
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
    write_json(directory / _MANIFEST, {**manifest, "factors": named})


def read_manifest(directory: Path) -> dict[str, Any]:
    """Reads `prepared.json`."""
    try:
        manifest = json.loads((directory / _MANIFEST).read_text())
        if not {"factors", "images", "skipped"} <= set(manifest):
            raise ValueError("it lacks entries")
        return manifest
    except (FileNotFoundError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"the prepared data in {directory} is damaged ({_MANIFEST}: {error}): delete that "
            "directory and prepare it again"
        ) from error


def fetch(remote: str, name: str, image_size: int, cache: Path) -> Path:
    """Copies a prepared data set from remote storage to the local directory that is returned.

    array_record files are read by random access, which requires a local disk. If `image_size` is
    not available, the next larger size is copied; if there is none, nothing is. If the size or time
    of a remote file changes, it is another data set with its own copy: a run that uses the earlier
    copy goes on.
    """
    from pivq_jax.data.preparation import locked, progress

    place: Any = as_path(remote)  # etils paths, unlike pathlib paths, can be copied
    try:
        prepared = retried(lambda: prepared_sizes(place, name), f"{name} in {remote}")
        sizes = [size for size in prepared if size >= image_size]
    except ImportError as error:  # its message names the package that this storage requires
        raise InputError(f"cannot open {remote}: {error}") from error
    if not sizes:
        return cache / "fetched" / "nothing"
    source = set_directory(place, name, sizes[0])
    files, version = retried(lambda: _versioned(source), str(source))
    local = cache / "fetched" / hashlib.sha256(f"{remote}\n{version}".encode()).hexdigest()[:16]
    target = set_directory(local, name, sizes[0])
    if target.exists():
        return local
    with locked(target.with_name(f".{target.name}.lock"), f"{name} from {remote}"):
        if not target.exists():
            work = target.with_name(f".{target.name}.incomplete")
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            for file in progress(files, f"copying {source}", len(files), unit=" files"):
                copy = partial(file.copy, work / file.name, overwrite=True)  # a part of it, perhaps
                retried(copy, str(file))
            work.rename(target)
    return local


def _versioned(source: Any) -> tuple[list[Any], str]:
    """Returns the files of a remote directory, and text that differs if one of them changes."""
    files = sorted(source.iterdir())
    lines = [(source / _MANIFEST).read_text()]
    for file in files:
        status = file.stat()  # of etils: some kinds of storage have no time, which is 0 then
        lines.append(f"{file.name}\t{status.length}\t{status.mtime}")
    return files, "\n".join(lines)
