"""Lists the prepared data, and deletes what is named.

    python -m pivq_jax.data.cache
    python -m pivq_jax.data.cache --delete NAME [NAME ...]

Own images are prepared again when they change, and data in buckets is copied again when it changes.
Earlier versions remain, as a run may use them. Anything may be deleted while no run uses it: it is
made again when it is needed. Leftovers of an interrupted deletion are listed as .NAME.*.deleted.
"""

import argparse
import datetime
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pivq_jax.common.command_line import CommandParser, exit_code
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import expanded, read_object
from pivq_jax.data.builder import default_data_dir
from pivq_jax.data.records import MANIFEST

# How the names of directories end that hold no whole data set: one in the making, and one whose
# deletion was interrupted.
_PARTS = (".incomplete", ".deleted")


class Prepared(NamedTuple):
    """A directory in the cache."""

    name: str  # its path relative to the cache
    size: int  # in bytes
    made: datetime.datetime  # when it was completed, or last written to
    images: int  # number of images; 0 if it is not complete


def contents(cache: Path) -> list[Prepared]:
    """Lists the prepared data sets, the unfinished ones and the half deleted, newest first."""
    listed = []
    for path in [*cache.glob("[!.]*/*"), *cache.glob("fetched/*/[!.]*/*")]:
        whole = not path.name.endswith(_PARTS)
        if whole and not (path / MANIFEST).exists():
            continue
        files = [file.stat() for file in path.rglob("*") if file.is_file()]
        made = datetime.datetime.fromtimestamp(max((file.st_mtime for file in files), default=0))
        images = read_object(path / MANIFEST, 2**28).get("images", {}) if whole else {}
        size = sum(file.st_size for file in files)
        name = path.relative_to(cache).as_posix()
        listed.append(Prepared(name, size, made, sum(images.values())))
    return sorted(listed, key=lambda entry: entry.made, reverse=True)


def delete(cache: Path, names: Sequence[str]) -> int:
    """Deletes data sets; returns the bytes freed. If one does not exist, none is deleted."""
    sizes = {entry.name: entry.size for entry in contents(cache)}
    for name in names:
        if name not in sizes:
            raise InputError(
                f"--delete={name}: there is no such data set in {cache}; without --delete, this"
                " command lists them"
            )
    for path in {cache / name for name in names}:
        # A new name: earlier deletions may have been interrupted.
        hidden = Path(tempfile.mkdtemp(_PARTS[1], f".{path.name}.", path.parent))
        os.replace(path, hidden)  # a stop in the middle leaves nothing that looks whole
        shutil.rmtree(hidden)
    return sum(sizes[name] for name in set(names))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 for I/O errors, 2 for invalid input."""
    parser = CommandParser(prog="python -m pivq_jax.data.cache", description=__doc__)
    parser.add_argument(
        "--directory",
        type=Path,
        help="directory of prepared data; default: $PIVQ_DATA_DIR or ~/.cache/pivq_jax/data",
    )
    parser.add_argument("--delete", nargs="+", default=[], metavar="NAME", help="data sets")
    return exit_code(partial(_run, parser.parse_args(arguments)))


def _run(options: argparse.Namespace) -> int:
    cache = expanded(options.directory or default_data_dir()).absolute()
    if options.delete:
        print(f"{delete(cache, options.delete) / 2**20:,.0f} MiB freed in {cache}")
        return 0
    listed = contents(cache)
    for entry in listed:
        state = f"{entry.images:,} images" if entry.images else "unfinished"
        size = f"{entry.size / 2**20:,.0f} MiB"
        print(f"{size:>12}  {entry.made:%Y-%m-%d %H:%M}  {state:>16}  {entry.name}")
    total = sum(entry.size for entry in listed)
    print(f"{total / 2**20:,.0f} MiB in {len(listed)} data sets in {cache}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
