"""Writes the shards of a data set in parallel, each once and atomically."""

import functools
import io
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pivq_jax.common.errors import InputError, brief
from pivq_jax.common.files import read_object, sync, write_json
from pivq_jax.data import images, records


class Entry(NamedTuple):
    """An image of the source."""

    file: str  # path relative to the directory, or a member of the archive; the seed of a drawing
    stamp: str  # text that changes when the image changes
    factors: tuple[int, ...]  # value of each factor


# The PNG file and factors of an entry. An InputError skips it, unless an `images.ShapeError`.
Make = Callable[[Entry], tuple[bytes, dict[str, int]]]


class FileRecipe(NamedTuple):
    """Makes records from image files."""

    root: str  # directory of the images, or a zip archive
    image_size: int  # height and width in pixels
    crop: int  # side of the central square in pixels; 0 for the largest square
    shape: tuple[int, int] | None  # required width and height of every image; None for any
    factors: tuple[str, ...]  # names of the factors

    def make(self, entry: Entry) -> tuple[bytes, dict[str, int]]:
        """Returns a record's PNG file and factors; raises InputError if it cannot be read."""
        name = images.readable_name(entry.file)
        if os.path.isfile(self.root):
            try:
                archive = _archive(self.root)
                with archive.open(entry.file) as member:  # no more than it claims is decompressed
                    content = member.read(archive.getinfo(entry.file).file_size)
            except Exception as error:  # zipfile and its decompressors raise many types
                raise InputError(f"cannot read image {name}: {brief(error)}") from error
            file: Any = io.BytesIO(content)
        else:
            file = os.path.join(self.root, entry.file)
        image = images.decode_image(
            file, self.image_size, name=name, crop=self.crop, shape=self.shape
        )
        return images.encode_png(image), dict(zip(self.factors, entry.factors, strict=True))


@functools.cache
def _archive(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


class Shard(NamedTuple):
    """A shard to write."""

    path: Path
    entries: tuple[Entry, ...]  # its images
    digest: str  # of everything that determines its contents

    @property
    def summary(self) -> Path:
        """Where its digest, images, bytes, size and skipped images are, once it is complete."""
        return self.path.parents[1] / "done" / f"{self.path.name}.json"


def read_summary(shard: Shard) -> dict[str, Any]:
    """Reads the summary of a shard; empty if the shard is missing, incomplete or out of date."""
    summary = read_object(shard.summary)
    whole = summary.get("digest") == shard.digest and shard.path.exists()
    return summary if whole and shard.path.stat().st_size == summary["size"] else {}


def write_shard(make: Make, shard: Shard) -> Iterator[str]:
    """Writes a shard; yields for each image an empty string, or the reason why it is skipped.

    An image of the wrong shape is an error.
    """
    from array_record.python import array_record_module

    part = shard.path.with_name(f".{shard.path.name}.part")
    total, skipped = 0, []
    try:
        writer = array_record_module.ArrayRecordWriter(os.fspath(part), "group_size:1")
        for entry in shard.entries:
            reason = ""
            try:
                record = records.encode(*make(entry))
                writer.write(record)
                total += len(record)
            except images.ShapeError:
                raise
            except InputError as error:
                reason = str(error)
                skipped.append(reason)
            yield reason
        writer.close()
    except RuntimeError as error:  # raised by the writer, for example if the disk is full
        raise OSError(f"cannot write {shard.path}: {error}") from error
    sync(part)
    os.replace(part, shard.path)
    summary = {
        "digest": shard.digest,
        "images": len(shard.entries) - len(skipped),
        "bytes": total,
        "size": shard.path.stat().st_size,
        "skipped": skipped,
    }
    write_json(shard.summary, summary)
