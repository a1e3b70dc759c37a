"""Batches of examples, and those of an evaluation: all images once and in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.data.sources import Example, Source

Batch = dict[str, np.ndarray]

# Enough threads to have the next batches ready, few enough to leave the cores to training.
READERS = 4


def eval_batches(
    source: Source | Sequence[Example],
    batch_size: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Returns all images once and in order, in batches as those of `pipeline.train_batches`.

    They also have `mask`, bool [b], which is False for the rows that fill the last batch. All
    processes get the same number of batches.
    """
    rows = local_rows(batch_size, process_index, process_count)
    count = len(source)
    if count == 0:
        raise InputError("the split to evaluate is empty: give it at least one image")

    def batch_at(index: int) -> Batch:
        indices = [index * batch_size + row for row in rows]
        batch = stack([source[min(i, count - 1)] for i in indices])
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


def local_rows(batch_size: int, process_index: int, process_count: int) -> range:
    """Returns the rows of the global batch that belong to a process."""
    rows = batch_size // process_count
    return range(rows * process_index, rows * (process_index + 1))


def stack(examples: list[Example]) -> Batch:
    """Returns the batch of these examples."""
    batch = {"image": np.stack([example["image"] for example in examples])}
    for name in examples[0]:
        if name != "image":
            batch[name] = np.array([example[name] for example in examples], np.int32)
    return batch
