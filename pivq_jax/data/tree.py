"""Listings of directory trees: every file with a stamp that changes when the file does."""

import collections
import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from absl import logging

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import expanded
from pivq_jax.common.storage import may_pass
from pivq_jax.data.images import is_image, kinds, readable_name

# Folders of network shares and of Windows that are hidden there.
_HIDDEN = ("@eaDir", "$RECYCLE.BIN", "System Volume Information")


def list_files(root: Path) -> dict[str, str]:
    """Lists the files of a tree by relative path, in order, each with its size and time as text.

    Links are followed, each directory is entered once, and links to directories are followed last,
    so that the path of a file does not change when a link to its directory is added.
    """
    stamps, entered, starts = {}, set(), [os.fspath(root)]
    while starts:
        for folder, folders, files in os.walk(starts.pop(0), onerror=_warn):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in entered:
                folders.clear()
                continue
            entered.add((status.st_dev, status.st_ino))
            # In order of names, so that of two links always the same is followed. Hidden ones hold
            # thumbnails and what was deleted: copies of images, which may be of another split.
            folders[:] = sorted(n for n in folders if not n.startswith(".") and n not in _HIDDEN)
            paths = [os.path.join(folder, name) for name in folders]
            starts += filter(os.path.islink, paths)  # which `os.walk` does not follow
            for name in files:
                path = os.path.join(folder, name)
                try:
                    status = os.stat(path)
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ELOOP):  # no broken link
                        _warn(error)
                    continue
                if stat.S_ISREG(status.st_mode):
                    stamp = f"{status.st_size} {status.st_mtime_ns}"
                    if not os.access(path, os.R_OK):  # what is skipped now is read once it may be
                        stamp += " unreadable"
                    stamps[path.removeprefix(os.path.join(root, ""))] = stamp
                elif is_image(path):  # reading a pipe waits for someone who writes to it
                    logging.warning("%s is left out: it is no file", readable_name(path))
    return dict(sorted(stamps.items()))


def check_unchanged(root: Path, files: dict[str, str]) -> None:
    """Refuses a tree with other images than `list_files` gave, as one that is still copied."""
    if fingerprint(list_files(root)) != fingerprint(files):
        raise InputError(
            f"{readable_name(root)} changed while it was read: run the command again once it is"
            " complete"
        )


def _warn(error: OSError) -> None:
    """Warns of a folder such as lost+found, which only the administrator may read.

    Raises the error if it is one of the storage, which may pass.
    """
    if may_pass(error):
        raise error
    logging.warning("%s is left out: %s", readable_name(error.filename), error.strerror)


def without_links(root: Path, images: dict[str, str]) -> dict[str, str]:
    """Leaves out links to images that are listed themselves, or by another link: copies of them."""
    folders = {os.path.realpath(root / folder) for folder in {*map(os.path.dirname, images)}}
    kept, targets = {}, set()
    for image, stamp in images.items():
        if os.path.islink(root / image):
            target = os.path.realpath(root / image)
            if target in targets or (os.path.dirname(target) in folders and is_image(target)):
                continue
            targets.add(target)
        kept[image] = stamp
    if copies := len(images) - len(kept):
        logging.warning("%s links to images of %s are left out", copies, readable_name(root))
    return kept


def list_images(directory: str | os.PathLike[str]) -> list[str]:
    """Lists the image files of a directory tree, see `is_image`: relative paths, sorted.

    Raises InputError if there is no such directory, or no image in it.
    """
    root = existing_directory(directory)
    files = list_files(root)
    images = [file for file in files if is_image(file)]
    if not images:
        raise InputError(f"no image in {root}: put some there ({kinds(files)})")
    return images


def existing_directory(
    directory: str | os.PathLike[str], wanted: str = "the path of a directory of images"
) -> Path:
    """Returns the path of a directory, with `~` expanded."""
    root = expanded(directory)
    if not root.is_dir():
        reason = f"{root} is a file" if root.exists() else f"no directory {root}"
        raise InputError(f"{reason}: give {wanted}")
    return root


def fingerprint(files: dict[str, str]) -> str:
    """Returns a hash of the names and stamps of all image files of a listed tree."""
    digests: dict[str, Any] = collections.defaultdict(hashlib.sha256)  # by directory
    for path, stamp in files.items():
        if is_image(path):
            directory, name = os.path.split(path)
            digests[directory].update(os.fsencode(f"{name}\t{stamp}\n"))
    whole = hashlib.sha256()
    for directory, digest in sorted(digests.items()):
        whole.update(os.fsencode(f"{directory}\n{digest.hexdigest()}\n"))
    return whole.hexdigest()
