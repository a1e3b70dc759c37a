"""Copies of prepared data sets in remote storage."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import as_path, new_folder
from pivq_jax.common.output import progress_bar
from pivq_jax.common.retry import retried
from pivq_jax.data.builder import locked
from pivq_jax.data.records import MANIFEST, find_directory


def fetch(remote: str, name: str, image_size: int, cache: Path) -> Path | None:
    """Copies a prepared data set to a local disk, for random access; returns its directory there.

    It has this or else the next larger size; None if there is none. If the size or time of a remote
    file changes, it is another data set with its own copy: a run that uses the earlier one goes on.
    """
    place: Any = as_path(remote)  # etils paths, unlike pathlib paths, can be copied
    try:
        found = retried(lambda: find_directory(place, name, image_size), f"{name} in {remote}")
    except ImportError as error:  # its message names the package that this storage requires
        raise InputError(f"cannot open {remote}: {error}") from error
    if found is None:
        return None
    files, version = retried(lambda: _versioned(found), str(found))
    copy = hashlib.sha256(f"{remote}\n{version}".encode()).hexdigest()[:16]
    target = cache / "fetched" / copy / name / found.name
    if target.exists():
        return target
    with locked(target.with_name(f".{target.name}.lock"), f"{name} from {remote}"):
        if not target.exists():
            with new_folder(target) as work:
                for file in progress_bar(files, desc=f"copying {found}", unit=" files"):
                    # There may be a part of it.
                    retried(partial(file.copy, work / file.name, overwrite=True), str(file))
    return target


def _versioned(source: Any) -> tuple[list[Any], str]:
    """Returns the files of a remote directory, and text that differs if one of them changes."""
    files = sorted(source.iterdir())
    lines = [(source / MANIFEST).read_text()]
    for file in files:
        status = file.stat()  # of etils: some kinds of storage have no time, which is 0 then
        lines.append(f"{file.name}\t{status.length}\t{status.mtime}")
    return files, "\n".join(lines)
