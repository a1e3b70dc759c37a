"""Directory trees of aligned images as a data set, prepared on first use."""

import dataclasses
import functools
import hashlib
import os
import re
import sys
from pathlib import Path

from pivq_jax.common.errors import InputError
from pivq_jax.data import layouts, splits, tree
from pivq_jax.data.builder import Plan, build, usable_cores
from pivq_jax.data.images import readable_name

NAME = "image_folder"

# With this number of files or fewer, a split could by chance be empty or contain only corrupt
# files, so images are read before they are assigned to splits.
_FEW = 200


def prepare_folder(path: str, image_size: int, cache: Path, group: str) -> Path:
    """Prepares the images of a folder on first use; returns the directory of the prepared ones.

    Its name depends on the absolute path, the image size, the group, and the name, size and time of
    every image: if any of these change, the images are prepared again.
    """
    if image_size < 8:
        raise InputError(f"image_size is {image_size}: it must be at least 8")
    splits.groups_by(group)  # an invalid one is an error before any work
    root = tree.existing_directory(path).resolve()
    files = tree.list_files(root)
    root_id = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    label = re.sub(r"[^A-Za-z0-9]+", "_", root.name).strip("_")[:40] or "images"
    contents = f"{root_id}\n{image_size}\n{tree.fingerprint(files)}"
    contents += f"\n{group}" if group else ""
    version = hashlib.sha256(contents.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    target = cache / NAME / f"{label}_{image_size}px_{version}"
    # Not of its version: a folder that changes leaves one unfinished directory, not many.
    stem = f"{label}_{image_size}px_{root_id}"
    make_plan = functools.partial(_plan, root, files, image_size, group)
    build(target, make_plan, workers=usable_cores(), stem=stem)
    return target


def _plan(root: Path, files: dict[str, str], image_size: int, group: str) -> Plan:
    listing = layouts.image_folder(root, group=group, files=files)
    entries = [entry for part in listing.splits.values() for entry in part]
    skipped: list[str] = []
    if len(entries) <= _FEW:
        readable = []
        for entry in sorted(entries):
            try:
                layouts.read_image(os.fspath(root), image_size, 0, None, entry)
                readable.append(entry)
            except InputError as error:
                skipped.append(str(error))
                print(f"skipped: {error}", file=sys.stderr)
        if len(readable) < len(splits.SPLITS):
            raise InputError(
                f"{len(readable)} readable images in {readable_name(root)} ({len(entries)} files):"
                " a data set needs at least 3, one per split"
            )
        listing = listing._replace(splits=splits.in_splits(readable, group))
    if tree.list_files(root) != files:
        raise InputError(
            f"{readable_name(root)} changed while it was listed: run the command again once it is"
            " complete"
        )
    plan = layouts.plan_of_files(NAME, listing, image_size, group=group)
    return dataclasses.replace(plan, skipped=skipped)
