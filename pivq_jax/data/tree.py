"""Listings of directory trees: every file with a stamp that changes when the file does."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from absl import logging

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import read_object, write_atomically
from pivq_jax.data.images import EXTENSIONS, is_image, unread_kinds

# Files whose stamps are compared even if their directory has not changed: overwriting a file does
# not change its directory.
_SAMPLED = 10_000

# A directory that changed within this time before it was listed could change again without a new
# modification time: file systems record times in steps of up to two seconds.
_RECENT_NS = 3 * 10**9


class Directory(NamedTuple):
    """A listed directory.

    Attributes:
        changed: its modification time in nanoseconds.
        below: its subdirectories, as paths relative to the root.
        links: links to directories, as paths relative to the root.
        images: number of image files, not counting those below.
        digest: hash of their names and stamps.
    """

    changed: int
    below: list[str]
    links: list[str]
    images: int
    digest: str


def list_files(root: Path) -> dict[str, str]:
    """Lists all files of a directory tree.

    Links are followed, each directory is entered once, and links to directories are followed last,
    so that the path of a file does not change when a link to its directory is added. Broken links
    are omitted.

    Args:
        root: the directory.

    Returns:
        A stamp (size and modification time) for each file, by its path relative to `root`, in
        order of the paths.
    """
    stamps: dict[str, str] = {}
    for _, _, files in _walk(os.fspath(root), {}):
        stamps.update(files)
    return dict(sorted(stamps.items()))


def list_images(directory: str | os.PathLike[str]) -> list[str]:
    """Lists the image files of a directory tree; see `list_files` and `is_image`.

    Args:
        directory: root of the tree.

    Returns:
        The paths, relative to the root and sorted.

    Raises:
        InputError: if the directory does not exist or contains no image.
    """
    root = existing_directory(directory)
    files = list_files(root)
    if not (found := [file for file in files if is_image(file)]):
        kinds, unread = " ".join(sorted(EXTENSIONS)), unread_kinds(files)
        raise InputError(
            f"no image in {root}: put files into it that end in one of {kinds}"
            + (f" ({unread})" if unread else "")
        )
    return found


def existing_directory(directory: str | os.PathLike[str]) -> Path:
    """Returns the path of a directory of images, with `~` expanded.

    Args:
        directory: the path.

    Raises:
        InputError: if it does not exist or is a file.
    """
    root = Path(directory).expanduser()
    if not root.exists():
        raise InputError(f"no directory {root}: give the path of a directory of images")
    if not root.is_dir():
        raise InputError(f"{root} is a file: give the path of a directory of images")
    return root


def fingerprint(root: Path, record: Path) -> tuple[str, int]:
    """Returns a hash of the names and stamps of all image files of a directory tree.

    What was found is kept in a file. The next call lists only directories that were modified since
    then (something was added, removed or renamed in them), and compares the stamps of up to 10,000
    files spread over the tree to notice that files were overwritten.

    Args:
        root: the directory.
        record: file for what was found.

    Returns:
        The hash, and the number of image files.
    """
    known, sample = _read_record(record)
    if any(_stamp(os.path.join(root, file)) != stamp for file, stamp in sample.items()):
        known, sample = {}, {}
    directories: dict[str, Directory] = {}
    fresh: list[tuple[str, str]] = []
    for name, directory, files in _walk(os.fspath(root), known):
        directories[name] = directory
        fresh += ((file, stamp) for file, stamp in files.items() if is_image(file))
        if len(fresh) > 8 * _SAMPLED:
            fresh = fresh[::2]
    if directories != known:
        unchanged = {
            name for name, directory in directories.items() if directory is known.get(name)
        }
        fresh += (item for item in sample.items() if os.path.dirname(item[0]) in unchanged)
        step = max(1, -(-len(fresh) // _SAMPLED))
        _write_record(record, directories, dict(fresh[::step]))
    digest = hashlib.sha256()
    for name in sorted(directories):
        if directories[name].images:
            digest.update(os.fsencode(f"{name}\n{directories[name].digest}\n"))
    return digest.hexdigest(), sum(directory.images for directory in directories.values())


def _walk(
    root: str, known: Mapping[str, Directory]
) -> Iterator[tuple[str, Directory, dict[str, str]]]:
    """Yields (path, directory, stamps of its files); known directories have no stamps."""
    entered, starts = set(), [""]
    while starts:
        pending = [starts.pop(0)]
        while pending:
            name = pending.pop()
            try:
                status = os.stat(os.path.join(root, name))
            except OSError:  # just deleted
                continue
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            directory, files = known.get(name), dict[str, str]()
            if directory is None or directory.changed != status.st_mtime_ns:
                directory, files = _list(root, name, status.st_mtime_ns)
            pending += reversed(directory.below)
            starts += directory.links
            yield name, directory, files


def _list(root: str, name: str, changed: int) -> tuple[Directory, dict[str, str]]:
    """Lists a directory, in order of names, so that of two links always the same is followed."""
    below: list[str] = []
    links: list[str] = []
    files: dict[str, str] = {}
    digest, images = hashlib.sha256(), 0
    if changed > time.time_ns() - _RECENT_NS:
        changed = -1  # list it again next time
    try:
        entries = sorted(os.scandir(os.path.join(root, name)), key=lambda entry: entry.name)
    except OSError as error:  # such as lost+found, which only the administrator may read
        logging.warning("%s is left out: %s", error.filename, error.strerror)
        entries = []
    for entry in entries:
        path = os.path.join(name, entry.name)
        if entry.is_dir():
            (links if entry.is_symlink() else below).append(path)
            continue
        try:
            status = entry.stat()
        except OSError:  # a broken link, or just deleted
            continue
        files[path] = f"{status.st_size} {status.st_mtime_ns}"
        if is_image(path):
            digest.update(os.fsencode(f"{entry.name}\t{files[path]}\n"))
            images += 1
    return Directory(changed, below, links, images, digest.hexdigest()), files


def _stamp(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def _read_record(path: Path) -> tuple[dict[str, Directory], dict[str, str]]:
    record = read_object(path)
    try:
        known = {name: Directory(*fields) for name, fields in record["directories"].items()}
        return known, dict(record["sample"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}, {}  # missing, or of another version


def _write_record(
    path: Path, directories: Mapping[str, Directory], sample: Mapping[str, str]
) -> None:
    record = {"directories": directories, "sample": sample}
    # Names that are not valid UTF-8 are escaped by JSON as lone surrogates, which it reads again.
    write_atomically(path, json.dumps(record).encode())
