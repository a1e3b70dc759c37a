"""Worker processes of the preparation of data sets."""

import pytest

from pivq_jax.data import worker


def test_workers_give_all_results_and_print_nothing(capfd):
    long = "e" * 2**20  # more than fits into a pipe or socket at once
    results = worker.run(str.split, ["a b", "c", long, "d"], workers=2)
    assert sorted(results) == ["a", "b", "c", "d", long]
    assert capfd.readouterr() == ("", "")


def refused(item):
    raise ConnectionResetError(104, f"{item} was reset")


def test_an_error_of_the_work_is_that_of_the_caller():
    with pytest.raises(ConnectionResetError, match="the disk was reset"):
        list(worker.run(refused, ["the disk"], workers=1))
