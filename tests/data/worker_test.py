"""Worker processes of the preparation of data sets."""

import os
import signal

import pytest

from pivq_jax.data import worker


def test_workers_give_all_results_and_print_nothing(capfd):
    long = "e" * 2**20  # more than fits into a pipe or socket at once
    results = worker.run(str.split, ["a b", "c", long, "d"], workers=2)
    assert sorted(results) == ["a", "b", "c", "d", long]
    assert capfd.readouterr() == ("", "")


def refused(item):
    raise ConnectionResetError(104, f"{item} was reset")


def killed(item):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    "work, message",
    [(refused, "the disk was reset"), (killed, "status -9, perhaps for lack of memory")],
)
def test_an_error_or_the_end_of_a_worker_is_an_error_of_the_caller(work, message):
    with pytest.raises(OSError, match=message):
        list(worker.run(work, ["the disk"], workers=1))
