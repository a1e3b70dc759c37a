"""Listings of directory trees: every file with a stamp that changes when the file does."""

import contextlib
import hashlib
import json
import os
import stat
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from absl import logging

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import expanded, read_object, write_atomically
from pivq_jax.data.images import EXTENSIONS, is_image, readable_name, unread_kinds

# Files whose stamps are compared even if their directory has not changed: overwriting a file does
# not change its directory.
_SAMPLED = 10_000

# A directory that changed within this time before it was listed could change again without a new
# time: file systems record times in steps of up to two seconds.
_RECENT_NS = 3 * 10**9


class Directory(NamedTuple):
    """A listed directory.

    Attributes:
        stamp: its times of modification and change; empty if it must be listed again.
        below: its subdirectories, as paths relative to the root.
        links: links to directories, as paths relative to the root.
        images: number of image files, not counting those below.
        digest: hash of their names and stamps.
    """

    stamp: str
    below: list[str]
    links: list[str]
    images: int
    digest: str


class _Sample:
    """Files that are compared again, a sample that is uniform over all files that are offered.

    Attributes:
        share: files with a smaller hash of their name are kept.
        stamps: the stamp of each file.
    """

    def __init__(self, share: int = 2**32) -> None:
        self.share, self.stamps = share, dict[str, str]()

    def offer(self, files: Iterable[tuple[str, str]]) -> None:
        """Keeps some of the files."""
        self.stamps.update((file, stamp) for file, stamp in files if self._has(file))
        while len(self.stamps) > _SAMPLED:
            self.share //= 2
            self.stamps = {f: stamp for f, stamp in self.stamps.items() if self._has(f)}

    def _has(self, file: str) -> bool:
        return zlib.crc32(os.fsencode(file)) < self.share


def list_files(root: Path) -> dict[str, str]:
    """Lists the files of a directory tree: a stamp (size and modification time) by relative path.

    Links are followed, each directory is entered once, and links to directories are followed last,
    so that the path of a file does not change when a link to its directory is added. Broken links
    are omitted, as are pipes, sockets and devices. Paths are in order.
    """
    stamps: dict[str, str] = {}
    for _, _, files in _walk(os.fspath(root), {}):
        stamps.update(files)
    return dict(sorted(stamps.items()))


def list_images(directory: str | os.PathLike[str]) -> list[str]:
    """Lists the image files of a directory tree, sorted; see `list_files` and `is_image`."""
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
    """Returns the path of a directory of images, with `~` expanded."""
    root = expanded(directory)
    if not root.exists():
        raise InputError(f"no directory {root}: give the path of a directory of images")
    if not root.is_dir():
        raise InputError(f"{root} is a file: give the path of a directory of images")
    return root


def fingerprint(root: Path, record: Path) -> tuple[str, int]:
    """Returns a hash of the names and stamps of all image files of a tree, and their number.

    What was found is kept in a file. The next call lists only directories that were changed since
    then (something was added, removed or renamed in them), and compares the stamps of up to 10,000
    files spread over the tree to notice that files were overwritten. If the file cannot be written,
    all is listed again next time.
    """
    known, earlier = _read_record(record)
    if any(_stamp(os.path.join(root, f)) != stamp for f, stamp in earlier.stamps.items()):
        known, earlier = {}, _Sample()
    directories: dict[str, Directory] = {}
    sample = _Sample(earlier.share)
    for name, directory, files in _walk(os.fspath(root), known):
        directories[name] = directory
        sample.offer((file, stamp) for file, stamp in files.items() if is_image(file))
    if directories != known:
        same = {name for name, directory in directories.items() if directory is known.get(name)}
        sample.offer(each for each in earlier.stamps.items() if os.path.dirname(each[0]) in same)
        _write_record(record, directories, sample)
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
            except FileNotFoundError:  # just deleted
                continue
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            stamp, files = _directory_stamp(status), dict[str, str]()
            directory = known.get(name)
            if directory is None or not stamp or directory.stamp != stamp:
                directory, files = _list(root, name, stamp)
            pending += reversed(directory.below)
            starts += directory.links
            yield name, directory, files


def _directory_stamp(status: os.stat_result) -> str:
    """Returns the times of a directory; empty if it changed so recently that they may not tell."""
    if max(status.st_mtime_ns, status.st_ctime_ns) > time.time_ns() - _RECENT_NS:
        return ""
    return f"{status.st_mtime_ns} {status.st_ctime_ns}"


def _list(root: str, name: str, stamp: str) -> tuple[Directory, dict[str, str]]:
    """Lists a directory, in order of names, so that of two links always the same is followed.

    If something in it cannot be looked at, it is listed again next time.
    """
    below: list[str] = []
    links: list[str] = []
    files: dict[str, str] = {}
    digest, images = hashlib.sha256(), 0
    try:
        with os.scandir(os.path.join(root, name)) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:  # such as lost+found, which only the administrator may read
        logging.warning("%s is left out: %s", readable_name(error.filename), error.strerror)
        entries, stamp = [], ""
    for entry in entries:
        path = os.path.join(name, entry.name)
        try:
            if entry.is_dir():
                (links if entry.is_symlink() else below).append(path)
                continue
            status = entry.stat()
        except OSError:  # a broken link, whose target may come
            stamp = ""
            continue
        if not stat.S_ISREG(status.st_mode):  # reading a pipe waits for someone who writes to it
            if is_image(path):
                logging.warning("%s is left out: it is no file", readable_name(path))
            continue
        files[path] = _file_stamp(status)
        if is_image(path):
            digest.update(os.fsencode(f"{entry.name}\t{files[path]}\n"))
            images += 1
    return Directory(stamp, below, links, images, digest.hexdigest()), files


def _stamp(path: str) -> str:
    try:
        return _file_stamp(os.stat(path))
    except OSError:
        return ""


def _file_stamp(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns}"


def _read_record(path: Path) -> tuple[dict[str, Directory], _Sample]:
    try:
        record = read_object(path, 2**28)  # of as many directories as there are
        if record["extensions"] != sorted(EXTENSIONS):  # a reader was installed or removed
            return {}, _Sample()
        known = {name: Directory(*fields) for name, fields in record["directories"].items()}
        sample = _Sample(int(record["share"]))
        sample.stamps = dict(record["sample"])
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return {}, _Sample()  # missing, or of another version
    return known, sample


def _write_record(path: Path, directories: Mapping[str, Directory], sample: _Sample) -> None:
    record = {
        "extensions": sorted(EXTENSIONS),
        "directories": directories,
        "share": sample.share,
        "sample": sample.stamps,
    }
    # A cache may be read-only for those who use it. JSON escapes names that are not valid UTF-8 as
    # lone surrogates, which it reads again.
    with contextlib.suppress(OSError):
        write_atomically(path, json.dumps(record).encode())
