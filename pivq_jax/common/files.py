"""Paths, and files and folders that appear whole or not at all."""

import contextlib
import errno
import functools
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from absl import logging

from pivq_jax.common.errors import InputError, brief

_REMOTE = {"gs": "gcsfs", "s3": "s3fs"}  # packages that etils reads remote storage with
_NEW = ".pivq_jax.new."  # prefix of the folders of files that are not yet in their place
_TEMPORARY = f".*.{'[0-9a-f]' * 32}.tmp"  # files that `write_atomically` has not yet renamed
_ABANDONED = 3_600  # seconds after the last write to such a file; clocks of machines may differ
MAX_NAME_BYTES = 255  # of a file's or folder's name, on most file systems


def is_remote(path: Path | str) -> bool:
    """Whether a path is one in remote storage, such as gs://bucket/run, or a URL."""
    return "://" in str(path)


def expanded(path: str | os.PathLike[str]) -> Path:
    """Returns a local path in which `~` is expanded; without that home directory an InputError."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{path}: there is no such home directory: set HOME, or give a path without ~"
        ) from error


def as_path(name: str) -> Path:
    """Converts a name to a local path, or to one of `etils.epath` in remote storage."""
    if not is_remote(name):
        return expanded(name)
    from etils import epath
    from fsspec.config import conf

    scheme = name.partition("://")[0]
    if scheme not in _REMOTE:
        raise InputError(f"{name}: {scheme}:// is unknown: use gs://, s3:// or a local path")
    if not any(map(importlib.util.find_spec, (_REMOTE[scheme], "tensorflow"))):
        raise InputError(f"cannot open {name}: pip install {_REMOTE[scheme]}")
    # Listings are kept for ever otherwise: what other processes write would never be seen.
    conf.setdefault(scheme, {}).setdefault("use_listings_cache", False)
    return cast(Path, epath.Path(name))


def local_path(name: str) -> Path:
    """Converts a name to a local path, in which `~` is expanded; refuses a URL."""
    if is_remote(name):
        raise InputError(f"{name} is in remote storage: use a local path, and copy from or to it")
    return expanded(name)


def cache_folder(name: str, variable: str = "") -> Path:
    """Returns ~/.cache/pivq_jax/`name`, or the folder that an environment variable names."""
    if named := os.environ.get(variable):
        return expanded(named)
    try:
        return Path("~/.cache/pivq_jax").expanduser() / name
    except RuntimeError:  # there is no home directory, as in some containers
        return _temporary_cache(Path(tempfile.gettempdir()) / f"pivq_jax-{os.getuid()}") / name


@functools.cache
def _temporary_cache(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        is_own = folder.stat().st_uid == os.getuid()  # or another user could put files there
    except OSError:
        is_own = False
    folder = folder if is_own else Path(tempfile.mkdtemp(prefix="pivq_jax-"))
    print(f"there is no home directory: caches are in {folder}", file=sys.stderr)
    return folder


def check_directory(directory: Path, flag: str, writes: bool = True) -> None:
    """Checks that a path, given by a flag, is a writable directory or can become one."""
    existing = next((path for path in (directory, *directory.parents) if path.exists()), None)
    if existing and not existing.is_dir():
        raise InputError(f"{existing} is a file: choose another {flag}")
    if isinstance(directory, Path) and directory.is_symlink() and not directory.exists():
        raise InputError(f"{directory} is a link to what does not exist: choose another {flag}")
    if writes and isinstance(existing, Path) and not os.access(existing, os.W_OK):
        raise InputError(f"{existing} cannot be written: choose another {flag}")


def check_no_others(target: Path, names: Container[str], folder: str = "") -> None:
    """Refuses a folder, local or remote, with other PNG files than those of these names."""
    for path in (target / folder).iterdir() if (target / folder).is_dir() else ():
        name = f"{folder}{path.name}"
        if path.is_dir():
            check_no_others(target, names, f"{name}/")
        elif name.endswith(".png") and name not in names:
            raise InputError(
                f"{target} holds another image, {name}: delete the folder, or choose another"
                " --output"
            )


def resolved(path: Path) -> Path:
    """Follows the links of a local path, which need not exist; a loop of links is an OSError."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.stat()  # since Python 3.13 `resolve` takes a loop for a name
    return path.resolve()


def check_apart(source: Path, output: Path, flag: str) -> None:
    """Refuses an output whose files would replace those of the source, or be taken for them."""
    if not isinstance(output, Path):  # remote
        return
    inner, outer = resolved(output), resolved(source)
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise InputError(
            f"--output {output} must be neither {flag} {source} nor within or around it: choose"
            " another --output"
        )


def check_lengths(names: Iterable[str], remedy: str) -> None:
    """Checks that names, paths with `/` between the parts, are not too long for a file system."""
    for name in names:
        for part in name.split("/"):
            if (size := len(part.encode(errors="surrogateescape"))) > MAX_NAME_BYTES:
                raise InputError(
                    f"the name {f'{part[:40]}...'!r} would take {size} bytes, more than the"
                    f" {MAX_NAME_BYTES} of file systems: {remedy}"
                )


def check_new_folder(target: Path, flag: str) -> None:
    """Checks that a local folder is new, or empty but for what a killed command left there."""
    target = resolved(target)
    if target.exists() and not (target.is_dir() and set(target.iterdir()) <= {_incomplete(target)}):
        raise InputError(f"{target} exists: give a new {flag}, as nothing is replaced")
    check_directory(target, flag)
    if (temporary := _incomplete(target)).exists():
        with _locked(temporary, target):
            pass


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields a folder to fill; its contents are those of `target` at the end, or gone on an error.

    Call `check_new_folder` before the work, too; it is called here again. An empty folder,
    which may be a mounted volume or the current directory, stays the same one.
    """
    check_new_folder(target, "folder")
    target = resolved(target)
    exists, temporary = target.exists(), _incomplete(target)
    if temporary.exists():  # of a command that was killed
        with _locked(temporary, target):
            shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    with name_file_in_errors(target), _locked(temporary, target):
        try:
            yield temporary
            sync_tree(temporary)
            if not exists:
                temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        if exists:  # a stop from here on deletes nothing
            for entry in list(temporary.iterdir()):
                entry.rename(target / entry.name)
            temporary.rmdir()
        sync(temporary.parent)


def _incomplete(target: Path) -> Path:
    """The folder in which the contents of `target` are collected, on the same file system."""
    parent = target if target.exists() else target.parent
    return parent / f".{target.name[:50]}.incomplete"


@contextlib.contextmanager
def _locked(folder: Path, target: Path) -> Iterator[None]:
    try:
        descriptor = flock(folder)
    except BlockingIOError as error:
        raise InputError(f"another process is filling {target}: give a new folder") from error
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def flock(path: Path) -> int | None:
    """Locks a local file or folder until the descriptor that is returned is closed.

    None if there are no such locks here; BlockingIOError if another process has locked it.
    """
    import fcntl  # not on Windows

    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return descriptor


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Holds an exclusive lock on a file; if another process does, says that it waits for `what`."""
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise InputError(
            f"{path.parent} cannot be written ({error.strerror}): name another directory with"
            " PIVQ_DATA_DIR, data_dir or --output"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.warning("another process is preparing %s: waiting for it", what)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise OSError(
                f"{path} cannot be locked ({error.strerror}): name a directory on a file system"
                " that has locks, such as a local disk, with PIVQ_DATA_DIR or --output"
            ) from error
        yield


def write_atomically(path: Path, content: bytes | Iterator[bytes]) -> None:
    """Writes a file, with its directories; even a power cut leaves the old or the new content.

    The first write of a process to a folder deletes temporary files that killed ones have left.
    """
    parts = iter([content]) if isinstance(content, bytes) else content
    if is_remote(path):  # where an object appears whole or not at all
        path.write_bytes(b"".join(parts))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    _delete_abandoned(path.parent.absolute())
    # A name that no other process uses, never too long for a file system.
    temporary = path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex}.tmp")
    try:
        with name_file_in_errors(path):
            with temporary.open("wb") as file:
                file.writelines(parts)
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@functools.cache  # listing a folder for each of its many files would take long
def _delete_abandoned(folder: Path) -> None:
    """Deletes temporary files of a folder that no process can be writing any more, by their age."""
    last = time.time() - _ABANDONED
    for path in folder.glob(_TEMPORARY):
        with contextlib.suppress(OSError):  # another process has deleted it, or it is not ours
            if path.stat().st_mtime < last:
                path.unlink()


def replace_together(directory: Path, contents: Mapping[str, bytes | None]) -> None:
    """Replaces files of a local directory, or deletes those of None, once all are on its disk.

    All but the first are deleted before it is replaced: what two calls wrote is never together.
    What killed processes have left of their calls is deleted, too.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _delete_unlocked(directory.glob(f"{_NEW}*"))
    with _new_locked(directory) as temporary:
        for name, content in contents.items():
            if content is not None:
                write_atomically(temporary / name, content)
        for name in [*contents][1:]:
            Path(directory, name).unlink(missing_ok=True)
        for name, content in contents.items():
            if content is not None:
                Path(temporary, name).replace(directory / name)
        sync(directory)


def _delete_unlocked(folders: Iterable[Path]) -> None:
    """Deletes folders whose process has ended, as far as locks tell."""
    for folder in folders:
        with contextlib.suppress(OSError):  # another process is filling it, or has just ended
            if (descriptor := flock(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(descriptor)


@contextlib.contextmanager
def _new_locked(directory: Path) -> Iterator[Path]:
    """Yields a new folder in a directory, locked until it is deleted at the end."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_NEW, dir=directory))
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            descriptor = flock(folder)
            if folder.exists():  # otherwise another process found it before it was locked
                break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def name_file_in_errors(path: Path) -> Iterator[None]:
    """Adds the path of what was written to an OSError without a file, as on a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextlib.contextmanager
def ignore_bucket_errors(path: Path) -> Iterator[None]:
    """Reports an error on stderr and goes on, if what is written is in a bucket; else raises it."""
    try:
        yield
    except Exception as error:
        if not is_remote(path):
            raise
        message = f"{path} is not written, and the run goes on: {brief(error)}"
        print(message, file=sys.stderr, flush=True)


def sync(path: Path) -> None:
    """Makes a local file, or the names in a local directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems cannot do this for directories
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Makes a local directory with all that it contains survive a power cut."""
    if not is_remote(path):
        for folder, _, files in os.walk(path):
            for name in files:
                sync(Path(folder, name))
            sync(Path(folder))
        sync(path.parent)


def json_bytes(value: Any) -> bytes:
    """Returns indented JSON; raises ValueError for NaN and infinity."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def json_rows(rows: Mapping[str, Any]) -> Iterator[bytes]:
    """JSON of arrays of integers by name, a line each: as one text, many take gigabytes."""
    start = "{"
    for name, row in rows.items():
        yield f"{start}\n{json.dumps(name)}: {row.tolist()}".encode()
        start = ","
    yield b"\n}\n"


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically; see `json_bytes`."""
    write_atomically(path, json_bytes(value))


def read_json(path: Path, most: int = 2**23) -> Any:
    """Reads JSON of at most so many bytes; as objects, they take up to thirty times as many."""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return json.loads(content)


def read_object(path: Path, most: int = 2**23) -> dict[str, Any]:
    """Reads a JSON object; it is empty if the file is missing, damaged or larger than `most`."""
    try:
        value = read_json(path, most)
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
