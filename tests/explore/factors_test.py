"""Where edited codes go, against SciPy; what edits themselves do is in tests/sampling."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from pivq_jax.common.errors import InputError

N, K = 8, 32  # of the tiny model


def some_sets(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation(K)[:N] for _ in range(count)]).astype(np.int32)


def test_edited_codes_are_in_the_places_of_those_they_replace(engine):
    codebook, replaced = np.asarray(engine.model.codebook, np.float64), 0
    for codes in some_sets(30):
        edited = engine.edit(codes, 0, 1 - int(engine.read_factors(codes)[0]))
        stays = edited == codes
        np.testing.assert_array_equal(stays, np.isin(codes, edited))
        cost = np.square(codebook[codes[~stays]][:, None] - codebook[edited[~stays]]).sum(-1)
        least = cost[linear_sum_assignment(cost)].sum()
        np.testing.assert_allclose(np.trace(cost), least, rtol=1e-5, atol=1e-9)
        replaced += 0 < (~stays).sum() < N
    assert replaced  # some, not all


@pytest.mark.parametrize(
    "factor, value, message",
    [
        (1, 0, "factor 1: factors are 0 to 0"),
        (-1, 0, "factor -1"),
        (0, 2, "value 2: values of shade are 0 to 1"),
        (0, -1, "value -1"),
    ],
)
def test_factors_and_values_out_of_range_are_refused(engine, factor, value, message):
    with pytest.raises(InputError, match=message):
        engine.edit(some_sets(1)[0], factor, value)
