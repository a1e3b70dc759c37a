"""How benchmarks take times."""

import itertools

import pytest

from benchmarks import common


def test_a_slow_call_is_warm_and_timed_three_times(monkeypatch):
    """A clock that each call moves on by its time: the first calls of a solver take longer."""
    now, takes = 0.0, {"slow": itertools.chain([60.0, 9.0, 1.0, 3.0], itertools.repeat(2.0))}
    takes["fast"] = itertools.chain([5.0], itertools.repeat(0.01))
    called = dict.fromkeys(takes, 0)

    def call(name: str) -> None:
        nonlocal now
        now, called[name] = now + next(takes[name]), called[name] + 1

    monkeypatch.setattr(common.time, "perf_counter", lambda: now)
    calls = {name: lambda name=name: call(name) for name in takes}
    times = common.milliseconds_in_turns(calls, 7, budget=0.4)
    assert called == {"slow": 2 + 3, "fast": 2 + 7}
    assert times == {"slow": 2_000.0, "fast": pytest.approx(10.0)}
