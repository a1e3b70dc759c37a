"""Storage of prepared data sets: records, locations, and copies of remote ones.

A data set NAME at S pixels is the directory NAME/Spx. It contains array_record files of tf.Example
messages (`image`, a PNG file, and one integer per factor), the metadata with which
tensorflow-datasets opens it, and `prepared.json`, which describes its origin.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import as_path, locked, new_folder, read_object
from pivq_jax.common.output import progress_bar

MANIFEST = "prepared.json"
COPIES = 8  # of files of a bucket, at the same time

# Keys of a batch that are not factors.
RESERVED = ("image", "mask")


def set_directory(root: Path, name: str, image_size: int) -> Path:
    """Returns the directory of a data set, `{root}/{name}/{image_size}px`."""
    return root / name / f"{image_size}px"


def prepared_sizes(root: Any, name: str) -> list[int]:
    """Lists the sizes at which a data set is prepared."""
    names = (path.parent.name.removesuffix("px") for path in (root / name).glob(f"*px/{MANIFEST}"))
    return [int(size) for size in names if size.isdecimal()]


def find_directory(root: Any, name: str, image_size: int) -> Any:
    """Returns the directory of a data set of this or else the next larger size, or None."""
    larger = [size for size in prepared_sizes(root, name) if size >= image_size]
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


def fetch(remote: str, name: str, image_size: int, cache: Path) -> Path | None:
    """Copies a data set, if prepared, to a local disk for random access; returns its directory.

    If the size or time of a remote file changes, it is another data set with its own copy: a run
    that uses the earlier one goes on.
    """
    root: Any = as_path(remote)  # etils paths, unlike pathlib paths, can be copied
    source = find_directory(root, name, image_size)
    if source is None:
        return None
    files, version = _versioned(source)
    copy = hashlib.sha256(f"{remote}\n{version}".encode()).hexdigest()[:16]
    target = cache / "fetched" / copy / name / source.name
    if target.exists():
        return target
    with locked(target.with_name(f".{target.name}.lock"), f"{name} from {remote}"):
        if not target.exists():
            with new_folder(target) as work, ThreadPoolExecutor(COPIES) as pool:
                copied = pool.map(partial(_copy, work), files)
                label = f"copying {source}"
                for _ in progress_bar(copied, desc=label, total=len(files), unit=" files"):
                    pass
                if _versioned(source)[1] != version:
                    raise InputError(
                        f"{source} changed while it was copied: run the command again once it is"
                        " complete"
                    )
    return target


def _copy(folder: Path, file: Any) -> None:
    """Copies a remote file to a folder."""
    file.copy(folder / file.name, overwrite=True)


def _versioned(source: Any) -> tuple[list[Any], str]:
    """Returns the files of a remote directory, and text that differs if one of them changes."""
    files = sorted(source.iterdir())
    lines = [(source / MANIFEST).read_text()]
    for file in files:
        status = file.stat()  # of etils: some kinds of storage have no time, which is 0 then
        lines.append(f"{file.name}\t{status.length}\t{status.mtime}")
    return files, "\n".join(lines)
