"""Copies of prepared data sets in remote storage."""

import hashlib
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import as_path
from pivq_jax.common.progress_bar import progress_bar
from pivq_jax.common.retry import retried
from pivq_jax.data.builder import locked
from pivq_jax.data.records import MANIFEST, prepared_sizes, set_directory


def fetch(remote: str, name: str, image_size: int, cache: Path) -> Path:
    """Copies a prepared data set from remote storage to the local directory that is returned.

    array_record files are read by random access, which requires a local disk. If `image_size` is
    not available, the next larger size is copied; if there is none, nothing is. If the size or time
    of a remote file changes, it is another data set with its own copy: a run that uses the earlier
    copy goes on.
    """
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
            for file in progress_bar(
                files, desc=f"copying {source}", total=len(files), unit=" files"
            ):
                copy = partial(file.copy, work / file.name, overwrite=True)  # a part of it, perhaps
                retried(copy, str(file))
            work.rename(target)
    return local


def _versioned(source: Any) -> tuple[list[Any], str]:
    """Returns the files of a remote directory, and text that differs if one of them changes."""
    files = sorted(source.iterdir())
    lines = [(source / MANIFEST).read_text()]
    for file in files:
        status = file.stat()  # of etils: some kinds of storage have no time, which is 0 then
        lines.append(f"{file.name}\t{status.length}\t{status.mtime}")
    return files, "\n".join(lines)
