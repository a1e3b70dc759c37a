"""Writes the shards of a data set in parallel, each once and atomically."""

import contextlib
import functools
import hashlib
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import traceback
import zipfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pivq_jax.common.errors import InputError, brief
from pivq_jax.common.files import write_json
from pivq_jax.data import images, records


class Entry(NamedTuple):
    """An image of the source.

    Attributes:
        file: path relative to the directory, or a member of the archive.
        stamp: text that changes when the file changes.
        factors: value of each factor.
    """

    file: str
    stamp: str
    factors: tuple[int, ...]


class Recipe(NamedTuple):
    """Common description of how the images of a data set are made.

    Attributes:
        root: directory of the images, or a zip archive.
        image_size: height and width in pixels.
        crop: side of the central square in pixels; 0 for the largest square.
        shape: required width and height of every image; None for any.
        factors: names of the factors.
    """

    root: str
    image_size: int
    crop: int
    shape: tuple[int, int] | None
    factors: tuple[str, ...]


class Shard(NamedTuple):
    """A shard to write.

    Attributes:
        path: final path of the shard.
        summary: path of its summary, written after the shard: digest, images, bytes, size, skipped.
        entries: its images.
    """

    path: Path
    summary: Path
    entries: tuple[Entry, ...]


def digest(recipe: Recipe, shard: Shard) -> str:
    """Returns a hash of everything that determines the contents of a shard.

    The location of the source is not included.

    Args:
        recipe: how the images are made.
        shard: the shard.
    """
    import PIL

    parts = (PIL.__version__, recipe._replace(root=""), shard.entries)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def read_summary(recipe: Recipe, shard: Shard) -> dict[str, Any] | None:
    """Reads the summary of a shard.

    Args:
        recipe: how the images are made.
        shard: the shard.

    Returns:
        The summary, or None if the shard is missing, incomplete or out of date.
    """
    try:
        summary = json.loads(shard.summary.read_text())
        good = summary["digest"] == digest(recipe, shard) and "skipped" in summary
        return summary if good and shard.path.stat().st_size == summary["size"] else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_shards(recipe: Recipe, shards: Sequence[Shard], workers: int) -> Generator[str]:
    """Writes shards in worker processes.

    Closing the generator, or any exception, ends the workers; if this process is killed, they end
    at their next image.

    Args:
        recipe: how the images are made.
        shards: the shards to write.
        workers: number of processes.

    Yields:
        For each image, an empty string, or the reason why it is skipped.

    Raises:
        InputError: if an image has the wrong shape.
        OSError: if a shard cannot be written or a worker dies.
    """
    context = multiprocessing.get_context("spawn")
    running: dict[multiprocessing.connection.Connection, Any] = {}
    processes = []
    try:
        for worker in range(min(workers, len(shards))):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_work, args=(theirs, recipe, shards[worker::workers]), daemon=True
            )
            with _ctrl_c_held_back():
                process.start()
            theirs.close()
            processes.append(process)
            running[ours] = process
        while running:
            for connection in multiprocessing.connection.wait(list(running)):
                assert isinstance(connection, multiprocessing.connection.Connection)
                try:
                    message = connection.recv()
                except EOFError:
                    running[connection].join()
                    raise OSError(
                        f"a worker process ended with status {running[connection].exitcode}, "
                        "perhaps for lack of memory: run again with fewer --workers"
                    ) from None
                if isinstance(message, str):
                    yield message
                elif message is None:
                    del running[connection]
                else:
                    raise message
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


@contextlib.contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Processes started in this context never receive Ctrl-C; the parent decides and ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Any, recipe: Recipe, shards: Sequence[Shard]) -> None:
    """Sends one message per image, then None; or an exception."""
    try:
        for shard in shards:
            for reason in _write_shard(recipe, shard):
                connection.send(reason)
        connection.send(None)
    except BrokenPipeError:  # the parent is gone
        return
    except Exception as error:
        if not isinstance(error, OSError | InputError):
            traceback.print_exc()
        connection.send(error)


def _write_shard(recipe: Recipe, shard: Shard) -> Iterator[str]:
    """Writes a shard; yields one message per image, as `write_shards`."""
    from array_record.python import array_record_module

    part = shard.path.with_name(f".{shard.path.name}.part")
    count = total = 0
    skipped = []
    try:
        writer = array_record_module.ArrayRecordWriter(os.fspath(part), "group_size:1")
        for entry in shard.entries:
            reason = ""
            try:
                image = _read(recipe, entry)
            except images.ShapeError:
                raise
            except InputError as error:
                reason = str(error)
                skipped.append(reason)
            else:
                factors = dict(zip(recipe.factors, entry.factors, strict=True))
                record = records.encode(images.encode_png(image), factors)
                writer.write(record)
                count, total = count + 1, total + len(record)
            yield reason
        writer.close()
    except RuntimeError as error:  # raised by the writer, for example if the disk is full
        raise OSError(f"cannot write {shard.path}: {error}") from error
    os.replace(part, shard.path)
    summary = {"digest": digest(recipe, shard), "images": count, "bytes": total}
    size = shard.path.stat().st_size
    write_json(shard.summary, {**summary, "size": size, "skipped": skipped})


def _read(recipe: Recipe, entry: Entry) -> Any:
    """Returns the image of an entry, uint8 [S, S, 3]."""
    name = images.readable_name(entry.file)
    if os.path.isfile(recipe.root):
        try:
            content = _archive(recipe.root).read(entry.file)
        except Exception as error:  # zipfile and its decompressors raise many types
            raise InputError(f"cannot read image {name}: {brief(error)}") from error
        file: Any = io.BytesIO(content)
    else:
        file = os.path.join(recipe.root, entry.file)
    return images.decode_image(
        file, recipe.image_size, name=name, crop=recipe.crop, shape=recipe.shape
    )


@functools.cache
def _archive(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)
