"""The input pipeline: batches are a function of seed and step; evaluations see every image once."""

import itertools
import multiprocessing
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data.pipeline import READERS, eval_batches, train_batches
from pivq_jax.data.sources import RandomSource
from tests.data.conftest import process_children


class Numbered:
    """Image i is filled with i, modulo 256, but for its left column: 255."""

    def __init__(self, count):
        self.count = count
        self.read = []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        image = np.full((4, 4, 3), index % 256, np.uint8)
        image[:, 0] = 255
        return {"image": image, "number": index, "parity": index % 2}


def numbers(count, steps, **arguments):
    """The image numbers of each of the first batches of training on `Numbered(count)`."""
    batches = train_batches(Numbered(count), **arguments)
    return [batch["number"].tolist() for batch in itertools.islice(batches, steps)]


def test_batches_have_the_promised_shapes_and_types():
    batch = next(train_batches(Numbered(10), batch_size=6, seed=0))
    assert batch.keys() == {"image", "number", "parity"}
    assert batch["image"].shape == (6, 4, 4, 3) and batch["image"].dtype == np.uint8
    assert batch["number"].shape == (6,) and batch["number"].dtype == np.int32
    np.testing.assert_array_equal(batch["image"][:, 0, 1, 0], batch["number"])
    np.testing.assert_array_equal(batch["parity"], batch["number"] % 2)


def test_the_order_and_the_flips_are_those_of_earlier_versions():
    """Found with grain 0.2.15: another order would change every run, and resumed ones midway."""
    expected = [[9, 5, 4, 1, 6], [3, 2, 0, 8, 7], [0, 7, 2, 6, 5], [8, 3, 9, 4, 1]]
    assert numbers(10, 4, batch_size=5, seed=0) == expected
    batches = train_batches(Numbered(10), batch_size=10, seed=0, flip=True)
    columns = [batch["image"][:, 0, -1, 0] for batch in itertools.islice(batches, 2)]
    mirrored = [np.flatnonzero(column == 255).tolist() for column in columns]
    assert mirrored == [[0, 3, 5, 6, 8, 9], [0, 4, 6, 7, 8, 9]]
    two_epochs = {"batch_size": 4, "seed": 1, "start_step": 2_569}
    assert numbers(10_280, 2, **two_epochs) == [[3435, 1054, 4810, 9996], [4383, 5122, 9874, 3215]]


@pytest.mark.parametrize("start_step", [1, 6, 17])
def test_resuming_gives_the_tail_of_the_run(start_step):
    arguments = {"batch_size": 8, "seed": 1, "flip": True}
    run = list(itertools.islice(train_batches(Numbered(50), **arguments), 20))
    resumed = train_batches(Numbered(50), start_step=start_step, **arguments)
    for expected, batch in zip(run[start_step:], resumed, strict=False):
        np.testing.assert_array_equal(batch["image"], expected["image"])
        np.testing.assert_array_equal(batch["number"], expected["number"])


def test_the_global_batch_does_not_depend_on_the_number_of_processes():
    own = {"batch_size": 8, "seed": 0, "process_count": 4}
    parts = [numbers(30, 10, process_index=index, **own) for index in range(4)]
    whole = [[*itertools.chain(*rows)] for rows in zip(*parts, strict=True)]
    assert whole == numbers(30, 10, batch_size=8, seed=0)


@pytest.mark.parametrize(("count", "batch_size", "seed"), [(30, 8, -1), (7, 16, 2**40)])
def test_every_image_comes_once_an_epoch_in_a_new_order(count, batch_size, seed):
    epochs = 4
    steps = -(-epochs * count // batch_size)
    stream = [*itertools.chain(*numbers(count, steps, batch_size=batch_size, seed=seed))]
    orders = [stream[e * count : (e + 1) * count] for e in range(epochs)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert len({tuple(order) for order in orders}) == epochs


def test_neighbouring_seeds_are_not_the_same_run_an_epoch_later():
    later = numbers(40, 5, batch_size=8, seed=0, start_step=5)
    assert later != numbers(40, 5, batch_size=8, seed=1)


def test_flips_are_mirror_images_of_about_half_and_off_by_default():
    plain, flipped = (
        next(train_batches(Numbered(200), batch_size=200, seed=0, **flip))
        for flip in ({}, {"flip": True})
    )
    np.testing.assert_array_equal(plain["number"], flipped["number"])
    assert (plain["image"][:, :, 0] == 255).all()
    is_flipped = flipped["image"][:, 0, -1, 0] == 255
    assert 60 < is_flipped.sum() < 140
    mirrored = np.where(is_flipped[:, None, None, None], plain["image"][:, :, ::-1], plain["image"])
    np.testing.assert_array_equal(flipped["image"], mirrored)


def test_worker_processes_give_the_same_batches_and_end_with_the_iterator():
    source = RandomSource(8, 50, seed=0)
    arguments = {"batch_size": 8, "seed": 1, "flip": True, "process_index": 1, "process_count": 2}
    expected = list(itertools.islice(train_batches(source, **arguments), 12))
    before = set(multiprocessing.active_children())
    batches = train_batches(source, start_step=3, workers=2, **arguments)
    for wanted in expected[3:]:
        batch = next(batches)
        assert batch.keys() == wanted.keys()
        for name, values in wanted.items():
            assert batch[name].dtype == values.dtype
            np.testing.assert_array_equal(batch[name], values)
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    for worker in workers:  # as to a whole process group, of which this process decides when to end
        os.kill(worker.pid, signal.SIGTERM)
    for _ in range(20):  # more than are ready
        next(batches)
    batches.close()
    assert not set(multiprocessing.active_children()) & workers


@pytest.mark.slow
def test_batches_end_when_a_worker_is_killed():
    before = set(multiprocessing.active_children())
    batches = train_batches(RandomSource(8, 50, seed=0), batch_size=8, seed=0, workers=2)
    next(batches)
    workers = set(multiprocessing.active_children()) - before
    os.kill(next(iter(workers)).pid, signal.SIGKILL)
    with pytest.raises(ChildProcessError, match=r"killed \(exit code -9\).*data\.workers"):
        for _ in range(100):
            next(batches)
    assert not set(multiprocessing.active_children()) & workers


WAITING = """
import time
from pivq_jax.data.pipeline import train_batches
from pivq_jax.data.sources import RandomSource
batches = train_batches(RandomSource(8, 50, seed=0), batch_size=8, seed=0, workers=2)
print(next(batches)["image"].shape, flush=True)
time.sleep(300)
"""


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(commands):
    command = commands.start(code=WAITING)
    children: list[int] = []

    def has_workers() -> bool:
        children[:] = process_children(command.pid)
        return "(8, 8, 8, 3)" in output.read_text() if output.exists() else False

    output = commands.directory / f"{commands._count}.stdout"
    command.kill_when(has_workers, signal.SIGKILL)
    assert command.wait().code == -signal.SIGKILL and len(children) >= 2
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline, "a worker is left behind"
        time.sleep(0.02)


def test_workers_are_refused_where_shared_memory_is_short(monkeypatch):
    """As in a container with 64 MiB; without the check a worker ends by SIGBUS."""
    usage = SimpleNamespace(free=64 * 2**20)
    monkeypatch.setattr("pivq_jax.data.pipeline.shutil.disk_usage", lambda path: usage)
    source = [{"image": np.zeros((256, 256, 3), np.uint8)}] * 64
    with pytest.raises(InputError, match=r"8 data workers .* 672 MiB .* 64 MiB free: .*at most 0"):
        train_batches(source, batch_size=64, seed=0, workers=8)
    train_batches(source, batch_size=64, seed=0).close()  # threads need none
    usage.free = 3 * 2**30
    with pytest.raises(InputError, match=r"8 data workers .* need 5376 MiB .* in all, .*at most 4"):
        train_batches(source, batch_size=64, seed=0, host_processes=8, workers=8)


@pytest.mark.parametrize(("count", "steps"), [(10, 3), (8, 2), (3, 1)])
def test_evaluation_sees_every_image_once_in_order(count, steps):
    batches = list(eval_batches(Numbered(count), 4))
    assert len(batches) == steps
    assert all(batch["image"].shape == (4, 4, 4, 3) for batch in batches)
    assert all(batch["mask"].dtype == bool for batch in batches)
    shown = np.concatenate([batch["number"] for batch in batches]).tolist()
    mask = np.concatenate([batch["mask"] for batch in batches]).tolist()
    filling = steps * 4 - count  # with the last image
    assert shown == [*range(count), *[count - 1] * filling]
    assert mask == [True] * count + [False] * filling


def test_evaluation_reads_ahead_no_further_than_needed_and_refuses_an_empty_split():
    source = Numbered(100)
    batches = eval_batches(source, 1)
    assert next(batches)["number"] == [0]
    until = time.monotonic() + 30
    while len(source.read) < READERS and time.monotonic() < until:
        time.sleep(0.01)
    batches.close()
    assert len(source.read) in (READERS, READERS + 1)
    assert sorted(source.read) == list(range(len(source.read)))
    with pytest.raises(InputError, match="split to evaluate is empty"):
        eval_batches(Numbered(0), 1)
