"""Directory trees of aligned images as a data set: their listing, and preparation on first use."""

import dataclasses
import functools
import hashlib
import os
import re
import sys
from collections.abc import Container
from pathlib import Path

from absl import logging

from pivq_jax.common.errors import InputError
from pivq_jax.data import layouts, splits, tree
from pivq_jax.data.builder import Entry, Plan, build, usable_cores
from pivq_jax.data.images import is_image, kinds, readable_name, unread_kinds
from pivq_jax.data.records import RESERVED

NAME = "image_folder"
ATTRIBUTES = "attributes.csv"  # labels of the images, see `read_csv`, if a folder holds it

# An attribute with more values is assumed to be a mistake, such as a column of numbers.
_MAX_VALUES = 256
_MAX_NAME = 200

# With this number of files or fewer, a split could by chance be empty or contain only corrupt
# files, so images are read before they are assigned to splits.
_FEW = 200


def prepare_folder(path: str, image_size: int, cache: Path, group: str) -> Path:
    """Prepares the images of a folder on first use; returns the directory of the prepared ones.

    Its name depends on the absolute path, the image size, the group, and the name, size and time of
    every image and of `ATTRIBUTES`: if any of these change, the images are prepared again.
    """
    if image_size < 8:
        raise InputError(f"image_size is {image_size}: it must be at least 8")
    splits.groups_by(group)  # an invalid one is an error before any work
    root = tree.existing_directory(path).resolve()
    files = tree.list_files(root)
    root_id = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    contents = f"{root_id}\n{image_size}\n{tree.fingerprint(files)}" + (group and f"\n{group}")
    if stamp := files.get(ATTRIBUTES):
        contents += f"\n{ATTRIBUTES} {stamp}"
    version = hashlib.sha256(os.fsencode(contents)).hexdigest()[:16]
    label = re.sub(r"[^A-Za-z0-9]+", "_", root.name).strip("_")[:40] or "images"
    label += f"_{image_size}px"
    target = cache / NAME / f"{label}_{version}"
    make_plan = functools.partial(_plan, root, files, image_size, group)
    # Not named after its version: a folder that changes leaves one unfinished directory, not many.
    build(target, make_plan, workers=usable_cores(), stem=f"{label}_{root_id}")
    return target


def _plan(root: Path, files: dict[str, str], image_size: int, group: str) -> Plan:
    listing = list_folder(root, group=group, files=files)
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
    check = functools.partial(tree.check_unchanged, root, files)
    check()  # before the work, as well as after it
    plan = layouts.plan_of_files(NAME, listing, image_size, group=group)
    return dataclasses.replace(plan, skipped=skipped, check=check)


def list_folder(
    source: Path,
    attributes: Path | None = None,
    group: str = "",
    files: dict[str, str] | None = None,
) -> layouts.Listing:
    """Lists a directory tree of images, split by a hash of their relative paths or groups.

    See `read_csv` for `attributes`, by default `ATTRIBUTES` in the directory if it is there, and
    `splits.groups_by` for `group`. `files` are those of `tree.list_files`, if it was called before.
    """
    files = tree.list_files(tree.existing_directory(source)) if files is None else files
    stamps = {file: stamp for file, stamp in files.items() if is_image(file)}
    stamps = tree.without_links(source, stamps)
    if len(stamps) < len(splits.SPLITS):
        raise InputError(
            f"{source} holds {len(stamps)} images ({kinds(files)}): a data set needs at"
            " least 3, one per split"
        )
    if unread := unread_kinds(files):
        logging.warning("%s: %s", readable_name(source), unread)
    tops = {file.partition("/")[0].lower() for file in stamps}
    if "train" in tops and (held_out := tops & {"val", "valid", "validation", "test"}):
        logging.warning(
            f"{readable_name(source)}: images of {' and '.join(sorted(held_out))} are"
            " trained on, too, as splits are by a hash of the path: to keep yours, see"
            " --config.data.name=tfds in docs/data.md"
        )
    factors: dict[str, tuple[str, ...]] = {}
    rows: dict[str, tuple[int, ...]] = dict.fromkeys(stamps, ())
    if attributes is None and ATTRIBUTES in files:
        attributes = source / ATTRIBUTES
    if attributes is not None:
        factors, rows = read_csv(attributes, stamps)
        layouts.need_all(stamps, rows, source, attributes)
    entries = [Entry(file, stamp, rows[file]) for file, stamp in stamps.items()]
    return layouts.Listing(source, splits.in_splits(entries, group), factors, None)


def read_csv(
    path: Path, wanted: Container[str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[int, ...]]]:
    """Returns the sorted values of each attribute, and the indices of each wanted image's values.

    The first row of the file names the attributes; each other row has the path of an image and its
    values. Rows of other images are not used.
    """
    rows = layouts.read_rows(path, as_csv=True)
    names = [name.strip() for name in next(rows, [])[1:]]
    if not names:
        raise InputError(
            f"{path} names no attributes: its first row must have a name for the image column"
            " and one for each attribute"
        )
    for name in names:
        allowed = re.fullmatch(r"\w[\w .-]*", name) and name not in RESERVED
        allowed = allowed and len(name.encode()) <= _MAX_NAME  # of a file, too
        if not allowed or names.count(name) > 1:
            raise InputError(
                f"{path} has an attribute named {name[:60]!r}: names consist of letters,"
                f" digits, spaces and _.-, at most {_MAX_NAME} bytes, occur once, and are not"
                f" {' or '.join(RESERVED)}"
            )

    values_of: dict[str, tuple[str, ...]] = {}
    columns: dict[str, set[str]] = {name: set() for name in names}
    for image, *fields in rows:
        values = tuple(sys.intern(field.strip()) for field in fields)  # each is kept once
        if len(values) != len(names) or not all((image, *values)):
            raise InputError(
                f"{path} does not give {image[:60]!r} a value for each of {len(names)} names"
            )
        if image not in wanted:
            continue
        if values_of.setdefault(image, values) != values:
            raise InputError(f"{path} has two rows for {image[:60]!r}, with other values: keep one")
        for value, (name, known) in zip(values, columns.items()):
            known.add(value)
            if len(known) > _MAX_VALUES:  # here, as all values may take gigabytes
                raise InputError(
                    f"{path} has more than {_MAX_VALUES} values of {name}: an attribute is a class"
                    f" of at most {_MAX_VALUES}; leave the column out"
                )
    factors = {name: tuple(sorted(known, key=_natural)) for name, known in columns.items()}
    indices = [{value: i for i, value in enumerate(known)} for known in factors.values()]
    images = {
        image: tuple(index[value] for index, value in zip(indices, values))
        for image, values in values_of.items()
    }
    return factors, images


def _natural(value: str) -> tuple[bool, int, str]:
    """Sort key: integers first, by value, then other values alphabetically."""
    number = re.fullmatch(r"-?\d{1,18}", value)  # longer ones are no class, and slow to convert
    return number is None, int(value) if number else 0, value
