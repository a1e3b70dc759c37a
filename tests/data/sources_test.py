"""The limit of open files, which each shard of prepared data counts towards."""

import resource

import pytest

from pivq_jax.data import sources

INFINITE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("now", "most", "granted", "expected"),
    [
        (1024, 2**20, 2**20, 65_536),
        (1024, 4096, 4096, 4096),
        (256, INFINITE, 61_440, 10_240),  # macOS
        (256, INFINITE, 128, 256),
        (2**17, INFINITE, INFINITE, 2**17),
        (INFINITE, INFINITE, INFINITE, INFINITE),
    ],
)
def test_as_many_files_may_be_open_as_the_system_grants(monkeypatch, now, most, granted, expected):
    limits = [now, most]

    def set_limit(what, wanted):
        if wanted[0] > granted:
            raise ValueError("current limit exceeds maximum limit")
        limits[:] = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda what: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    sources._allow_open_files()
    assert limits == [expected, most]
