"""Builds a data set once: in shards, in parallel, continuing where an earlier call stopped."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import cache_folder, locked, read_object, sync, write_json
from pivq_jax.common.output import progress_bar
from pivq_jax.data import records, worker
from pivq_jax.data.images import ShapeError

# Images per shard: the most that each worker loses if it is interrupted.
_SHARD_IMAGES = 1024

# A worker process takes about as long to start as this number of images to read or to draw.
_IMAGES_PER_WORKER = 200


class Entry(NamedTuple):
    """An image of the source."""

    file: str  # path relative to the directory, or a member of the archive; the seed of a drawing
    stamp: str  # text that changes when the image changes
    factors: tuple[int, ...]  # value of each factor


# Returns the PNG file of an entry and the values of its factors. For an InputError the entry is
# skipped, but a `ShapeError` ends the preparation.
Make = Callable[[Entry], tuple[bytes, Sequence[int]]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A data set to prepare."""

    name: str  # name of the data set
    image_size: int  # height and width in pixels
    splits: Mapping[str, Sequence[Entry]]  # images of each split, in order
    factors: Mapping[str, Sequence[str]]  # names of the values of each factor
    identity: str  # differs if the same entries would give other records
    make: Make  # makes records; can be pickled
    origin: dict[str, Any]  # entries of `prepared.json` that describe the source
    source: str  # the source in messages
    max_skipped: float = 1.0  # largest fraction of images that cannot be read
    skipped: Sequence[str] = ()  # why images that are in no split were left out
    card: Mapping[str, str] = dataclasses.field(default_factory=dict)  # for other programs
    check: Callable[[], None] = lambda: None  # raises InputError if the source has changed


def default_data_dir() -> Path:
    """Returns the directory of prepared data: $PIVQ_DATA_DIR, or else ~/.cache/pivq_jax/data."""
    return cache_folder("data", "PIVQ_DATA_DIR")


def usable_cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def build(
    target: Path, make_plan: Callable[[], Plan], *, workers: int, stem: str | None = None
) -> dict[str, Any]:
    """Prepares a data set in `target`, unless it is there; returns the contents of `prepared.json`.

    What is not complete is in a hidden directory named after `stem`, which the next call continues.
    """
    stem = stem or target.name
    work = target.with_name(f".{stem}.incomplete")
    if not target.exists():
        with locked(target.with_name(f".{stem}.lock"), f"{target.parent.name}/{stem}"):
            if not target.exists():
                plan = make_plan()
                _make(work, plan, workers)
                plan.check()
                os.replace(work / "data", target)
                sync(target.parent)
            shutil.rmtree(work, ignore_errors=True)
    return records.read_manifest(target)


def _make(work: Path, plan: Plan, workers: int) -> None:
    """Writes the data set to `work`/data, continuing the work of an earlier call."""
    for split, entries in plan.splits.items():
        if not entries:
            raise InputError(
                f"no {split} image of {plan.name} in {plan.source}: give a complete source"
            )
    shards = list(_shards(work, plan))
    expected = {path for shard in shards for path in (shard.path, shard.summary)}
    for folder in (work / "data", work / "done"):
        folder.mkdir(parents=True, exist_ok=True)
        for path in set(folder.iterdir()) - expected:
            path.unlink()
    _write_missing(plan, shards, workers)

    done: dict[str, list[dict[str, Any]]] = {split: [] for split in plan.splits}
    skipped = [*plan.skipped]
    for shard in shards:
        summary = _read_summary(shard)
        done[shard.split].append(summary)
        skipped += summary["skipped"]
    for split, summaries in done.items():
        if not sum(summary["images"] for summary in summaries):
            raise InputError(
                f"none of the {len(plan.splits[split]):,} {split} images in {plan.source} can be"
                f" read, such as: {summaries[0]['skipped'][0]}"
            )
    if skipped:
        total = sum(map(len, plan.splits.values())) + len(plan.skipped)
        print(f"{len(skipped):,} of {total:,} images of {plan.source} skipped", file=sys.stderr)
    _write_metadata(work / "data", plan, done, skipped)


def _write_metadata(
    folder: Path, plan: Plan, done: dict[str, list[dict[str, Any]]], skipped: list[str]
) -> None:
    """Writes what opens the shards of `folder`, from their summaries; the manifest comes last."""
    import tensorflow_datasets as tfds

    size, factors = plan.image_size, {name: list(plan.factors[name]) for name in plan.factors}
    image = tfds.features.Image(shape=(size, size, 3), encoding_format="png")
    labels = {name: tfds.features.ClassLabel(names=values) for name, values in factors.items()}
    splits = [
        tfds.core.SplitInfo(split, [s["images"] for s in shards], sum(s["bytes"] for s in shards))
        for split, shards in done.items()  # their summaries
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features={"image": image, **labels},
        split_infos=splits,
        version="1.0.0",
        check_data=False,  # which needs TensorFlow
        disable_shuffling=True,
        **{"description": f"{plan.name}, {size} x {size} pixels.", **plan.card},
    )
    images = {split.name: split.num_examples for split in splits}
    manifest = {**plan.origin, "images": images, "skipped": skipped, "factors": factors}
    write_json(folder / records.MANIFEST, manifest)


class _Shard(NamedTuple):
    """A shard to write."""

    split: str
    path: Path
    summary: Path  # digest, images, bytes, size and skipped images, once it is complete
    entries: tuple[Entry, ...]  # its images
    digest: str  # of everything that determines its contents


def _shards(work: Path, plan: Plan) -> Iterator[_Shard]:
    """Yields the shards of all splits, with the names that tensorflow-datasets gives them."""
    for split, images in plan.splits.items():
        starts = range(0, len(images), _SHARD_IMAGES)
        for index, start in enumerate(starts):
            name = f"{plan.name}-{split}.array_record-{index:05d}-of-{len(starts):05d}"
            entries = tuple(images[start : start + _SHARD_IMAGES])
            contents = os.fsencode(repr((plan.identity, [*plan.factors], entries)))
            digest = hashlib.sha256(contents).hexdigest()
            summary = work / "done" / f"{name}.json"
            yield _Shard(split, work / "data" / name, summary, entries, digest)


def _write_missing(plan: Plan, shards: Sequence[_Shard], workers: int) -> None:
    """Writes shards that are not there, with a progress bar; prints why images are skipped."""
    from tqdm import tqdm

    summaries = [(shard, _read_summary(shard)) for shard in shards]
    missing = [shard for shard, summary in summaries if not summary]
    known = [line for _, summary in summaries for line in summary.get("skipped", ())]
    images, total = (sum(len(shard.entries) for shard in part) for part in (missing, shards))
    write = functools.partial(_write_shard, plan.make, tuple(plan.factors))
    workers = min(workers, images // _IMAGES_PER_WORKER)
    skipped = []
    with contextlib.closing(worker.run(write, missing, workers)) as results:
        name = f"{plan.name} {plan.image_size}px"
        written = progress_bar(results, desc=name, total=images, unit=" images")
        for reason in filter(None, itertools.chain(known, written)):
            tqdm.write(f"skipped: {reason}", file=sys.stderr)
            skipped.append(reason)
            if len(skipped) > plan.max_skipped * total:
                raise InputError(
                    f"more than {100 * plan.max_skipped:g} % of the {total:,} images in"
                    f" {plan.source} cannot be read ({skipped[0]}): download them again"
                )


def _read_summary(shard: _Shard) -> dict[str, Any]:
    """Reads the summary of a shard; empty if the shard is missing, incomplete or out of date."""
    summary = read_object(shard.summary)
    whole = summary.get("digest") == shard.digest and shard.path.exists()
    return summary if whole and shard.path.stat().st_size == summary["size"] else {}


def _write_shard(make: Make, factors: Sequence[str], shard: _Shard) -> Iterator[str]:
    """Writes a shard; yields for each image an empty string, or the reason why it is skipped."""
    from array_record.python import array_record_module

    part = shard.path.with_name(f".{shard.path.name}.part")
    total, skipped = 0, []

    @contextlib.contextmanager
    def writing() -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # of the writer, for example if the disk is full
            raise OSError(f"cannot write {shard.path}: {error}") from error

    with writing():
        writer = array_record_module.ArrayRecordWriter(os.fspath(part), "group_size:1")
    for entry in shard.entries:
        reason = ""
        try:
            png, values = make(entry)
        except ShapeError:
            raise
        except InputError as error:
            reason = str(error)
            skipped.append(reason)
        else:
            record = records.encode(png, dict(zip(factors, values, strict=True)))
            with writing():
                writer.write(record)
            total += len(record)
        yield reason
    with writing():
        writer.close()
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
