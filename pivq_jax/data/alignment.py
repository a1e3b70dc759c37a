"""Directory trees of photographs of faces, aligned in parallel, each file once and atomically."""

import collections
import contextlib
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pivq_jax.common import files
from pivq_jax.common.errors import InputError
from pivq_jax.common.output import progress_bar
from pivq_jax.common.pictures import encode_png
from pivq_jax.data import framing, images, landmarks, tree, worker
from pivq_jax.data.skip_list import SkipList

# Why photographs are skipped, in the order in which they are counted.
REASONS = ("skip list", "no face", "too small", "cut off", "unreadable")

SETTINGS = "align.json"
SKIPPED = "skipped.tsv"
_LOCK = ".align.lock"

# Photographs are not enlarged more than this: what has less detail looks like no photograph.
_MAX_ENLARGEMENT = 2.0

# Nor where an eye is nearer to the edge than this, in distances of the eyes: beyond half of a face
# one would see its reflection, with the same eye once more.
_MARGIN = 0.45

# A worker process takes about as long to start as this number of photographs to align.
_PHOTOGRAPHS_PER_WORKER = 50
_STAMP = "photograph"  # names a text in an aligned image; see `_stamp`


class Skipped(NamedTuple):
    """A photograph that was not aligned."""

    file: str  # its path relative to the source
    reason: str  # one of `REASONS`; empty for one that was aligned
    detail: str  # what was found instead


def align_folder(
    source: Path,
    output: Path,
    size: int,
    *,
    preset: str = "face",
    skip: SkipList | None = None,
    workers: int = 0,
) -> tuple[int, list[Skipped]]:
    """Aligns all photographs of a directory tree; returns how many, and what was skipped, by file.

    Those whose names hold an expression of `skip` are left out. `output` is made, or completed if
    an earlier call with the same arguments made it.
    """
    import PIL

    if not 8 <= size <= 8192:
        raise InputError(f"--size is {size}: it must be at least 8 and at most 8,192")
    root = tree.existing_directory(source)
    files.check_directory(output, "--output")
    files.check_apart(root, output, "--source")
    listed = tree.list_images(root)
    left_out = _listed_in(skip, listed) if skip else []
    photographs = sorted({*listed} - {photograph.file for photograph in left_out})
    if not photographs:
        raise InputError(f"--skip leaves none of the {len(listed):,} images in {root}")
    _check_names(photographs)
    settings = {
        "source": images.readable_name(root.resolve()),
        "size": size,
        "preset": preset,
        "skip list": skip.digest if skip else None,
        "versions": {**landmarks.versions(), "pillow": PIL.__version__},
    }
    new, claimed = not output.exists(), (output / SETTINGS).exists()
    with files.locked(output / _LOCK, images.readable_name(output)):
        try:
            _claim(output, settings)
            todo = [file for file in photographs if not _is_done(root, output, file)]
            function = functools.partial(_align_file, root, output, size, preset)
            most = min(workers, len(todo) // _PHOTOGRAPHS_PER_WORKER)
            with contextlib.closing(worker.run(function, todo, most)) as results:
                bar = progress_bar(results, desc="align", total=len(todo), unit=" photographs")
                skipped = sorted([*left_out, *(result for result in bar if result.reason)])
            aligned = len(listed) - len(skipped)
            if not aligned:
                if not claimed:
                    (output / SETTINGS).unlink()
                first = next(each for each in skipped if each.reason != "skip list")
                raise InputError(
                    f"none of the {len(listed):,} images in {root} could be aligned"
                    f" ({counts(skipped)}; {first.file}: {first.detail}): give"
                    " photographs of faces, upright and seen from the front"
                )
        except InputError:
            if not (output / SETTINGS).exists():  # leave nothing that was not there
                (output / _LOCK).unlink()
                if new:
                    with contextlib.suppress(OSError):
                        output.rmdir()
            raise
        rows = [("file", "reason", "detail"), *skipped]
        lines = ["\t".join(map(images.readable_name, row)) + "\n" for row in rows]
        files.write_atomically(output / SKIPPED, "".join(lines).encode())
    return aligned, skipped


def _listed_in(skip: SkipList, photographs: Sequence[str]) -> list[Skipped]:
    expressions = [(file, skip.find(file)) for file in photographs]
    return [
        Skipped(file, "skip list", f"its name has: {text}") for file, text in expressions if text
    ]


def _target(output: str | Path, file: str) -> Path:
    return Path(output, file).with_suffix(".png")


def _check_names(photographs: Sequence[str]) -> None:
    """Rejects photographs that would become one aligned image, or one the folder of another."""
    taken: dict[Path, str] = {}
    for file in photographs:
        name = _target("", file)
        if (other := taken.setdefault(name, file)) != file:
            raise InputError(
                f"{other} and {file} would both become {name}: rename or remove one of them"
            )
    for name, file in taken.items():
        if folder := next((up for up in name.parents if up in taken), None):
            raise InputError(
                f"{taken[folder]} would become {folder}, the folder of {file}: rename one of them"
            )


def _claim(output: Path, settings: dict[str, Any]) -> None:
    """Records the settings in the output; rejects one that was made with others."""
    for leftover in output.glob(f".{SETTINGS}.*.tmp"):  # of a command that was killed
        leftover.unlink()
    present = {path.name for path in output.iterdir()} - {_LOCK}
    if SETTINGS not in present:
        if present:
            raise InputError(
                f"{output} holds other files, such as {min(present)}: choose another --output, or"
                " an empty directory"
            )
        files.write_json(output / SETTINGS, settings)
        return
    recorded = files.read_object(output / SETTINGS)
    if differing := [key for key, value in settings.items() if recorded.get(key) != value]:
        raise InputError(
            f"{output} was made with another {' and '.join(differing)} (see {SETTINGS} there):"
            " delete it, or choose another --output"
        )
    for leftover in output.rglob(".*.tmp"):  # likewise
        leftover.unlink()


def _is_done(source: Path, output: Path, file: str) -> bool:
    """Whether the aligned image is there, of a photograph of this size and time.

    Raises FileNotFoundError if the photograph is gone.
    """
    stamp = _stamp(source / file)
    try:
        with _target(output, file).open("rb") as aligned:
            return f"{_STAMP}\0{stamp}".encode() in aligned.read(256)
    except FileNotFoundError:
        return False


def _stamp(photograph: Path) -> str:
    """The size and time of a photograph, which its aligned image has, too, in a text chunk."""
    status = photograph.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _align_file(source: Path, output: Path, size: int, preset: str, file: str) -> list[Skipped]:
    """Aligns one photograph; of one that is skipped, no earlier result is left.

    The result gets the size and the time of the photograph, so that another one is noticed.
    Of a photograph that is gone, which is a FileNotFoundError, the earlier result stays.
    """
    target = _target(output, file)
    stamp = _stamp(source / file)
    target.unlink(missing_ok=True)
    try:
        photograph = images.decode_whole(source / file, name=images.readable_name(file))
    except InputError as error:
        return [Skipped(file, "unreadable", str(error))]
    eyes = landmarks.find_eyes(photograph)
    if eyes is None:
        return [Skipped(file, "no face", "no face was found")]
    distance = float(np.linalg.norm(eyes[1] - eyes[0]))
    least = framing.eye_distance(size, preset) / _MAX_ENLARGEMENT
    if distance < least:
        detail = f"the eyes are {distance:.1f} pixels apart, less than {least:.1f}"
        return [Skipped(file, "too small", detail)]
    margin = float(np.minimum(eyes, photograph.shape[1::-1] - eyes).min())
    least = _MARGIN * distance
    if margin < least:
        detail = f"an eye is {margin:.1f} pixels from the edge, less than {least:.1f}"
        return [Skipped(file, "cut off", detail)]
    aligned = framing.align(photograph, eyes, size, preset)
    files.write_atomically(target, encode_png(aligned, {_STAMP: stamp}))
    changed = int(stamp.split()[1])
    os.utime(target, ns=(changed, changed))
    return [Skipped(file, "", "")]


def counts(skipped: Sequence[Skipped]) -> str:
    """Describes how many photographs were skipped for each reason."""
    by_reason = collections.Counter(photograph.reason for photograph in skipped)
    return ", ".join(f"{by_reason[name]:,} {name}" for name in REASONS if by_reason[name])
