"""Input pipeline: the contents of a batch depend only on the seed and the global step.

There is no iterator state to save. A run that resumes at step s requests the batches from s on and
gets the same batches as the uninterrupted run, on any number of processes.
"""

import atexit
import hashlib
import importlib.metadata
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Generator
from typing import Any

import grain
import numpy as np
from absl import flags

from pivq_jax.common.errors import InputError
from pivq_jax.data.batches import READERS, Batch, local_rows, stack
from pivq_jax.data.sources import Example, Source

SHARED_MEMORY = "/dev/shm"  # where Grain's workers leave their batches, on Linux
# Batches of a worker there: six by measurement (Grain 0.2, two of them waiting), and a spare one.
SHARED_BATCHES = 7


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    flip: bool = False,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
) -> Generator[Batch]:
    """Yields training batches without end, for steps `start_step`, `start_step` + 1, ...

    A batch has the rows of this process: `image`, uint8 [b, H, W, 3], and each factor as int32 [b],
    with b = batch_size / process_count. It is a pure function of (source, seed, step, batch_size,
    flip), with threads of this process (0 workers) or with subprocesses, which end when the
    generator is closed or this process ends. Each epoch has all images once, in an order of its
    own; a batch may contain the end of one and the start of the next.
    """
    rows = local_rows(batch_size, process_index, process_count)
    examples = _shuffled(source, seed, flip)

    def batch_at(offset: int) -> Batch:
        first = (start_step + offset) * batch_size
        return stack([examples[first + row] for row in rows])

    steps = grain.MapDataset.range(sys.maxsize // batch_size - start_step)
    batches = steps.map(batch_at).to_iter_dataset(grain.ReadOptions(READERS, READERS))
    if workers:
        _check_shared_memory(workers, len(rows) * np.asarray(source[0]["image"]).nbytes)
        if not flags.FLAGS.is_parsed():  # Grain reads absl flags, which not every program parses
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=2)
        batches = batches.mp_prefetch(options, _start_worker)
    return _closing(iter(batches))


def shuffled_by() -> str:
    """Returns the package and version that determine the order of the training images."""
    return f"grain {importlib.metadata.version('grain')}"


def _check_shared_memory(workers: int, batch_bytes: int) -> None:
    """Refuses workers that would be killed (SIGBUS) when the shared memory is full."""
    if not os.path.isdir(SHARED_MEMORY):
        return
    needed = SHARED_BATCHES * workers * batch_bytes
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < needed:
        fitting = free // (SHARED_BATCHES * batch_bytes)
        raise InputError(
            f"{workers} data workers need {needed / 2**20:.0f} MiB of shared memory, and"
            f" {SHARED_MEMORY} has {free / 2**20:.0f} MiB free: give the container more (docker run"
            f" --shm-size={needed / 2**30 + 1:.0f}g), or use at most {fitting} with"
            " --config.data.workers"
        )


def _start_worker(index: int, count: int) -> None:
    """Ignores what the parent handles, and ends this worker when the parent is killed."""
    del index, count
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    # Grain ends its workers one after another, and regular shutdown of the imports takes seconds.
    atexit.register(os._exit, 0)


def _closing(batches: Any) -> Generator[Batch]:
    """Yields the batches and closes their iterator when the generator is closed."""
    try:
        yield from batches
    except RuntimeError as error:  # Grain's is of no kind of its own
        killed = re.search(r"Worker process was terminated .* exit code (-?\d+)", str(error))
        if not killed:
            raise
        raise ChildProcessError(
            f"a data worker was killed (exit code {killed[1]}), perhaps for lack of memory: use"
            " fewer with --config.data.workers; the same command continues from the last checkpoint"
        ) from error
    finally:
        batches.close()


def _shuffled(source: Source, seed: int, flip: bool) -> Any:
    """Returns endless examples: position p is image p mod n in the order of epoch p // n."""
    # Grain shuffles epoch e with (seed + e) mod 2^32. Without hashing, seed s + 1 would give the
    # batches of seed s one epoch later; hashing also allows any int.
    mixed = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4], "little")
    examples = grain.MapDataset.source(source).seed(mixed).shuffle().repeat()
    return examples.random_map(_random_flip) if flip else examples


def _random_flip(example: Example, rng: np.random.Generator) -> Example:
    if rng.random() < 0.5:
        return {**example, "image": example["image"][:, ::-1]}
    return example
