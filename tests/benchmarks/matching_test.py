"""How the benchmark of matching takes times."""

import itertools

import numpy as np
import pytest

from benchmarks import matching


def test_a_slow_call_is_warm_and_timed_three_times(monkeypatch):
    """A clock that each call moves on by its time: the first call of a solver takes longer."""
    now, takes = 0.0, {"slow": itertools.chain([60.0, 1.0, 3.0], itertools.repeat(2.0))}
    takes["fast"] = itertools.chain([5.0], itertools.repeat(0.01))
    called = dict.fromkeys(takes, 0)

    def call(name: str) -> str:
        nonlocal now
        now, called[name] = now + next(takes[name]), called[name] + 1
        return name

    monkeypatch.setattr(matching.time, "perf_counter", lambda: now)
    calls = {name: lambda name=name: call(name) for name in takes}
    seconds, results = matching.time_in_turns(calls, 7, budget=0.4)
    assert called == {"slow": 1 + 3, "fast": 1 + 7} and results == {"slow": "slow", "fast": "fast"}
    assert seconds == {"slow": 2.0, "fast": pytest.approx(0.01)}


@pytest.mark.parametrize("name", matching.PEERS)
def test_peers_solve_the_same_problems(name):
    pytest.importorskip(matching.PEERS[name][0])
    for size in ((3, 6, 6), (3, 6, 10)):
        cost = matching.make_cost("gaussian", *size).astype(np.float64)
        found = matching.solve_peer(name, cost, threads=1)
        np.testing.assert_array_equal(found, matching.solve_scipy(cost))
