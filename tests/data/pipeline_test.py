"""The input pipeline: batches are a function of seed and step; evaluations see every image once."""

import collections
import itertools
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.data.pipeline import READERS, eval_batches, train_batches
from pivq_jax.data.sources import RandomSource
from tests.data.conftest import Numbered, process_children


def numbers(batches, steps):
    """The image numbers of each of the next batches."""
    return [batch["number"].tolist() for batch in itertools.islice(batches, steps)]


def joined(lists):
    return list(itertools.chain.from_iterable(lists))


def test_batches_have_the_promised_shapes_and_types():
    batch = next(train_batches(Numbered(10), batch_size=6, seed=0))
    assert batch.keys() == {"image", "number", "parity"}
    assert batch["image"].shape == (6, 4, 4, 3)
    assert batch["image"].dtype == np.uint8
    assert batch["number"].shape == (6,)
    assert batch["number"].dtype == np.int32
    np.testing.assert_array_equal(batch["image"][:, 0, 1, 0], batch["number"])
    np.testing.assert_array_equal(batch["parity"], batch["number"] % 2)


def test_the_same_seed_gives_the_same_order_and_another_another():
    first, second, other = (
        numbers(train_batches(Numbered(50), batch_size=8, seed=seed), 20) for seed in (3, 3, 4)
    )
    assert first == second
    assert first != other


def test_the_order_and_the_flips_are_those_of_earlier_versions():
    """Found with grain 0.2.15: another order would change every run, and resumed ones midway."""
    expected = [[9, 5, 4, 1, 6], [3, 2, 0, 8, 7], [0, 7, 2, 6, 5], [8, 3, 9, 4, 1]]
    assert numbers(train_batches(Numbered(10), batch_size=5, seed=0), 4) == expected
    batches = train_batches(Numbered(10), batch_size=10, seed=0, flip=True)
    columns = [batch["image"][:, 0, -1, 0] for batch in itertools.islice(batches, 2)]
    mirrored = [np.flatnonzero(column == 255).tolist() for column in columns]
    assert mirrored == [[0, 3, 5, 6, 8, 9], [0, 4, 6, 7, 8, 9]]
    large = train_batches(Numbered(10_280), batch_size=4, seed=1, start_step=2_569)  # two epochs
    assert numbers(large, 2) == [[3435, 1054, 4810, 9996], [4383, 5122, 9874, 3215]]


@pytest.mark.parametrize("start_step", [1, 5, 6, 17])
@pytest.mark.parametrize("flip", [False, True])
def test_resuming_gives_the_tail_of_the_run(start_step, flip):
    arguments = {"batch_size": 8, "seed": 1, "flip": flip}
    run = list(itertools.islice(train_batches(Numbered(50), **arguments), 20))
    resumed = train_batches(Numbered(50), start_step=start_step, **arguments)
    for expected, batch in zip(run[start_step:], resumed, strict=False):
        np.testing.assert_array_equal(batch["image"], expected["image"])
        np.testing.assert_array_equal(batch["number"], expected["number"])


@pytest.mark.parametrize("process_count", [2, 4, 8])
def test_the_global_batch_does_not_depend_on_the_number_of_processes(process_count):
    whole = numbers(train_batches(Numbered(30), batch_size=8, seed=0), 10)
    parts = [
        numbers(
            train_batches(
                Numbered(30),
                batch_size=8,
                seed=0,
                process_index=index,
                process_count=process_count,
            ),
            10,
        )
        for index in range(process_count)
    ]
    assert [joined(rows) for rows in zip(*parts, strict=True)] == whole


@pytest.mark.parametrize(("count", "batch_size"), [(24, 8), (30, 8), (7, 16), (1, 4)])
def test_every_image_comes_once_an_epoch_in_a_new_order(count, batch_size):
    epochs = 4
    steps = -(-epochs * count // batch_size)
    stream = joined(numbers(train_batches(Numbered(count), batch_size=batch_size, seed=0), steps))
    orders = [stream[e * count : (e + 1) * count] for e in range(epochs)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    if count > 1:
        assert len({tuple(order) for order in orders}) == epochs


def test_neighbouring_seeds_are_not_the_same_run_an_epoch_later():
    later = joined(numbers(train_batches(Numbered(40), batch_size=8, seed=0, start_step=5), 5))
    neighbour = joined(numbers(train_batches(Numbered(40), batch_size=8, seed=1), 5))
    assert later != neighbour


@pytest.mark.parametrize("seed", [-1, 0, 2**40])
def test_any_integer_is_a_seed(seed):
    (rows,) = numbers(train_batches(Numbered(9), batch_size=9, seed=seed), 1)
    assert sorted(rows) == list(range(9))


def test_flips_are_mirror_images_of_about_half_and_off_by_default():
    count = 200
    plain = next(train_batches(Numbered(count), batch_size=count, seed=0))
    flipped = next(train_batches(Numbered(count), batch_size=count, seed=0, flip=True))
    np.testing.assert_array_equal(plain["number"], flipped["number"])
    assert (plain["image"][:, :, 0] == 255).all()
    is_flipped = (flipped["image"][:, 0, -1, 0] == 255) & (plain["number"] != 255)
    assert 60 < is_flipped.sum() < 140
    mirrored = np.where(is_flipped[:, None, None, None], plain["image"][:, :, ::-1], plain["image"])
    np.testing.assert_array_equal(flipped["image"], mirrored)


def test_flips_of_an_image_differ_between_epochs():
    batches = train_batches(Numbered(64), batch_size=64, seed=0, flip=True)
    seen = collections.defaultdict(set)
    for batch in itertools.islice(batches, 12):
        for number, image in zip(batch["number"], batch["image"], strict=True):
            seen[int(number)].add(bool(image[0, 0, 0] == 255))
    assert sum(len(sides) == 2 for sides in seen.values()) > 55


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


WAITING = """
import time
from pivq_jax.data.pipeline import train_batches
from pivq_jax.data.sources import RandomSource
batches = train_batches(RandomSource(8, 50, seed=0), batch_size=8, seed=0, workers=2)
print(next(batches)["image"].shape, next(batches)["image"].shape, flush=True)
try:
    time.sleep(300)
except KeyboardInterrupt:
    print(next(batches)["image"].shape, flush=True)  # the workers are still there
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_outlive_ctrl_c_but_not_their_parent(commands, number):
    command = commands.start(code=WAITING)
    output = commands.directory / f"{commands._count}.stdout"
    command.kill_when(lambda: output.exists() and "\n" in output.read_text(), 0)
    children = process_children(command.pid)
    assert len(children) >= 2
    # As a terminal does: to all of them. SIGKILL hits the parent alone.
    for pid in [*(children if number == signal.SIGINT else []), command.pid]:
        os.kill(pid, number)
    done = command.wait()
    assert done.code == (0 if number == signal.SIGINT else -signal.SIGKILL), done.stderr
    assert done.stdout.count("(8, 8, 8, 3)") == (3 if number == signal.SIGINT else 2)
    assert "Traceback" not in done.stderr
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline, "a worker is left behind"
        time.sleep(0.02)


def test_errors_of_the_source_reach_the_caller():
    class Broken(Numbered):
        def __getitem__(self, index):
            raise OSError("disk on fire")

    with pytest.raises(OSError, match="disk on fire"):
        next(train_batches(Broken(5), batch_size=2, seed=0))


@pytest.mark.slow
def test_batches_end_when_a_worker_is_killed():
    before = set(multiprocessing.active_children())
    batches = train_batches(RandomSource(8, 50, seed=0), batch_size=8, seed=0, workers=2)
    next(batches)
    workers = set(multiprocessing.active_children()) - before
    os.kill(next(iter(workers)).pid, signal.SIGKILL)
    with pytest.raises(ChildProcessError, match=r"killed \(exit code -9\).*data\.workers") as end:
        for _ in range(100):
            next(batches)
    assert "\n" not in str(end.value)
    assert not set(multiprocessing.active_children()) & workers


def test_workers_are_refused_where_shared_memory_is_short(monkeypatch):
    """As in a container with 64 MiB; without the check a worker ends by SIGBUS."""
    usage = SimpleNamespace(free=64 * 2**20)
    monkeypatch.setattr("pivq_jax.data.pipeline.shutil.disk_usage", lambda path: usage)
    source = [{"image": np.zeros((256, 256, 3), np.uint8)}] * 64
    with pytest.raises(
        InputError, match=r"8 data workers of each process need 672 MiB .* 64 MiB free: .*at most 0"
    ):
        train_batches(source, batch_size=64, seed=0, workers=8)
    train_batches(source, batch_size=64, seed=0).close()  # threads need none
    usage.free = 3 * 2**30
    with pytest.raises(InputError, match=r"8 data workers .* need 5376 MiB .* in all, .*at most 4"):
        train_batches(source, batch_size=64, seed=0, host_processes=8, workers=8)


@pytest.mark.parametrize(("count", "batch_size", "steps"), [(10, 4, 3), (8, 4, 2), (3, 8, 1)])
def test_evaluation_sees_every_image_once_in_order(count, batch_size, steps):
    batches = list(eval_batches(Numbered(count), batch_size))
    assert len(batches) == steps
    assert all(batch["image"].shape == (batch_size, 4, 4, 3) for batch in batches)
    assert all(batch["mask"].dtype == bool for batch in batches)
    shown = np.concatenate([batch["number"] for batch in batches]).tolist()
    mask = np.concatenate([batch["mask"] for batch in batches]).tolist()
    filling = steps * batch_size - count  # with the last image
    assert shown == [*range(count), *[count - 1] * filling]
    assert mask == [True] * count + [False] * filling


def test_batches_are_read_ahead_and_no_further_than_needed():
    class Noted(Numbered):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    read: list[int] = []
    before = set(threading.enumerate())
    batches = eval_batches(Noted(100), 1)
    assert next(batches)["number"] == [0]
    until = time.monotonic() + 30
    while len(read) < READERS and time.monotonic() < until:
        time.sleep(0.01)
    batches.close()
    assert len(read) in (READERS, READERS + 1) and sorted(read) == list(range(len(read)))
    added = set(threading.enumerate()) - before
    assert not [thread for thread in added if thread.name.startswith("ThreadPoolExecutor")]


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
