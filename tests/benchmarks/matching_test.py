"""The peers of the benchmark of matching."""

import numpy as np
import pytest

from benchmarks import matching


@pytest.mark.parametrize("name", matching.PEERS)
def test_peers_solve_the_same_problems(name):
    pytest.importorskip(matching.PEERS[name][0])
    for size in ((3, 6, 6), (3, 6, 10)):
        cost = matching.make_cost("gaussian", *size).astype(np.float64)
        found = matching.solve_peer(name, cost, threads=1)
        np.testing.assert_array_equal(found, matching.solve_scipy(cost))
