"""The batches of an evaluation: every image once, in order, without grain."""

import threading
import time

import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data.batches import READERS, eval_batches
from tests.data.conftest import Numbered


@pytest.mark.parametrize(("count", "batch_size", "steps"), [(10, 4, 3), (8, 4, 2), (3, 8, 1)])
def test_evaluation_sees_every_image_once_in_order(count, batch_size, steps):
    batches = list(eval_batches(Numbered(count), batch_size))
    assert len(batches) == steps
    assert all(batch["image"].shape == (batch_size, 4, 4, 3) for batch in batches)
    assert all(batch["mask"].dtype == bool for batch in batches)
    kept = np.concatenate([batch["number"][batch["mask"]] for batch in batches])
    assert kept.tolist() == list(range(count))


def test_the_last_evaluation_batch_is_masked_at_its_end():
    *whole, last = eval_batches(Numbered(10), 4)
    assert all(batch["mask"].all() for batch in whole)
    assert last["mask"].tolist() == [True, True, False, False]
    assert last["number"].tolist() == [8, 9, 9, 9]


def test_evaluation_processes_get_equally_many_batches_and_share_the_rows():
    whole = list(eval_batches(Numbered(9), 4))
    parts = [list(eval_batches(Numbered(9), 4, process_index=i, process_count=2)) for i in (0, 1)]
    assert [len(part) for part in parts] == [3, 3]
    for index, batch in enumerate(whole):
        for name, values in batch.items():
            shared = np.concatenate([part[index][name] for part in parts])
            np.testing.assert_array_equal(shared, values)


def test_batches_are_read_ahead_and_no_further_than_needed():
    class Noted(Numbered):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    read: list[int] = []
    batches = eval_batches(Noted(100), 1)
    assert next(batches)["number"] == [0]
    until = time.monotonic() + 30
    while len(read) < READERS and time.monotonic() < until:
        time.sleep(0.01)
    batches.close()
    assert len(read) in (READERS, READERS + 1) and sorted(read) == list(range(len(read)))
    assert not [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]


def test_what_reading_raises_is_raised_in_turn():
    class Broken(Numbered):
        def __getitem__(self, index):
            if index == 5:
                raise OSError("image 5 cannot be read")
            return super().__getitem__(index)

    batches = eval_batches(Broken(8), 2)
    assert [next(batches)["number"].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(OSError, match="image 5"):
        next(batches)


def test_an_empty_split_is_refused():
    with pytest.raises(InputError, match="split to evaluate is empty"):
        eval_batches(Numbered(0), 1)
