"""Both ways of finding minima with their places, whichever the platform would choose."""

import numpy as np
import pytest

from pivq_jax.matching import minima


def _draw(shape):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, shape).astype(np.float32)  # many ties
    values[rng.random(shape) < 0.3] = np.inf
    values[0, 0] = np.inf
    return values, rng.permuted(np.broadcast_to(np.arange(shape[2]), shape), axis=2)


@pytest.mark.parametrize("find", [minima._least_by_passes, minima._least_at_once])
@pytest.mark.parametrize("axis", [1, 2])
def test_least(find, axis):
    values, codes = _draw((5, 7, 9))
    low, code = find(values, codes.astype(np.int32), axis)
    want = values.min(axis, keepdims=True)
    np.testing.assert_array_equal(low, want.squeeze(axis))
    np.testing.assert_array_equal(code, np.where(values == want, codes, 99).min(axis))


@pytest.mark.parametrize("find", [minima._least_two_by_passes, minima._least_two_at_once])
@pytest.mark.parametrize("shape", [(5, 7, 9), (5, 3, 1)])
def test_least_two(find, shape):
    values, codes = _draw(shape)
    low, second, code = find(values, codes.astype(np.int32))
    ordered = np.sort(np.concatenate([values, np.full((*shape[:2], 1), np.inf)], 2), 2)
    np.testing.assert_array_equal(low, ordered[..., 0])
    np.testing.assert_array_equal(second, ordered[..., 1])
    want = np.where(values == low[..., None], codes, 99).min(2)
    np.testing.assert_array_equal(code, want)
