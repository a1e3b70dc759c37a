"""Input pipeline: batches of training and of evaluations.

Training batches depend only on the seed and the global step, so there is no iterator state to save.
A run that resumes at step s requests the batches from s on and gets the same batches as the
uninterrupted run, on any number of processes.
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
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from absl import flags

from pivq_jax.common.errors import InputError
from pivq_jax.data.sources import Example, Source

Batch = dict[str, np.ndarray]

# Enough threads to have the next batches ready, few enough to leave the cores to training.
READERS = 4

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
    host_processes: int = 1,
    workers: int = 0,
) -> Generator[Batch]:
    """Yields training batches without end, for steps `start_step`, `start_step` + 1, ...

    A batch has the rows of this process: `image`, uint8 [b, H, W, 3], and each factor, int32 [b],
    with b = batch_size / process_count. The workers are subprocesses, which end with the generator
    or with this process; those of all `host_processes` of this machine share its memory.
    """
    import grain  # evaluations do without

    rows = batch_size // process_count  # of this process, among those of the global batch
    own_rows = range(rows * process_index, rows * (process_index + 1))
    # Grain shuffles epoch e with (seed + e) mod 2^32. Without hashing, seed s + 1 would give the
    # batches of seed s one epoch later; hashing also allows any int.
    mixed = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4], "little")
    examples = grain.MapDataset.source(source).seed(mixed).shuffle().repeat()
    if flip:
        examples = examples.random_map(_random_flip)

    def batch_at(offset: int) -> Batch:
        first = (start_step + offset) * batch_size
        return _stack([examples[first + row] for row in own_rows])

    steps = grain.MapDataset.range(sys.maxsize // batch_size - start_step)
    batches = steps.map(batch_at).to_iter_dataset(grain.ReadOptions(READERS, READERS))
    if workers:
        batch_bytes = rows * np.asarray(source[0]["image"]).nbytes
        _check_shared_memory(workers, host_processes * batch_bytes)
        if not flags.FLAGS.is_parsed():  # Grain reads absl flags, which not every program parses
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=2)
        batches = batches.mp_prefetch(options, _start_worker)
    return _closing(iter(batches))


def shuffle_version() -> str:
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
            f"{workers} data workers of each process need {needed / 2**20:.0f} MiB of shared memory"
            f" in all, and {SHARED_MEMORY} has {free / 2**20:.0f} MiB free: give the container more"
            f" (docker run --shm-size={needed / 2**30 + 1:.0f}g), or use at most {fitting} with"
            " --config.data.workers"
        )


def _start_worker(*_: int) -> None:
    """Ignores what the parent handles, and ends this worker when the parent is killed."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.SIG_IGN)
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
    except InputError as error:  # Grain adds lines about its traceback
        raise InputError(str(error).partition("\n")[0]) from error
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


def _random_flip(example: Example, rng: np.random.Generator) -> Example:
    if rng.random() < 0.5:
        return {**example, "image": example["image"][:, ::-1]}
    return example


def eval_batches(source: Source | Sequence[Example], batch_size: int) -> Iterator[Batch]:
    """Returns all images once and in order, in batches as those of `train_batches`.

    They also have `mask`, bool [b], which is False for the rows that fill the last batch.
    """
    count = len(source)
    if count == 0:
        raise InputError("the split to evaluate is empty: give it at least one image")

    def batch_at(index: int) -> Batch:
        indices = range(index * batch_size, (index + 1) * batch_size)
        batch = _stack([source[min(i, count - 1)] for i in indices])
        return {**batch, "mask": np.array([i < count for i in indices])}

    return _read_ahead(batch_at, -(-count // batch_size))


def _read_ahead(batch_at: Callable[[int], Batch], count: int) -> Generator[Batch]:
    """Yields batches 0 to `count` - 1, while threads read the next ones."""
    readers = ThreadPoolExecutor(READERS)
    waiting = deque(readers.submit(batch_at, index) for index in range(min(READERS, count)))
    try:
        for index in range(READERS, READERS + count):
            batch = waiting.popleft().result()
            if index < count:
                waiting.append(readers.submit(batch_at, index))
            yield batch
    finally:
        readers.shutdown(cancel_futures=True)


def _stack(examples: list[Example]) -> Batch:
    batch = {"image": np.stack([example["image"] for example in examples])}
    for name in examples[0]:
        if name != "image":
            batch[name] = np.array([example[name] for example in examples], np.int32)
    return batch
