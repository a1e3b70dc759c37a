"""DCI against its definition, written anew with SciPy."""

import hypothesis
import numpy as np
import pytest
import scipy.stats
from hypothesis import strategies as st

from pivq_jax.evaluation import attributes


def dci(importance, accuracy):
    names = ("disentanglement", "completeness", "informativeness")
    scores = attributes.dci(importance, accuracy)
    assert tuple(scores) == names
    return tuple(scores.values())


def oracle(importance, accuracy):
    """Feature by feature and factor by factor."""
    features, factors = importance.shape
    columns = [c / c.sum() if c.sum() else c for c in importance.T.astype(float)]
    share = np.stack(columns, axis=1)
    disentanglement = 0.0
    for row in share:
        if row.sum():
            purity = 1 - scipy.stats.entropy(row, base=factors)
            disentanglement += purity * row.sum() / share.sum()
    completeness = [
        1 - scipy.stats.entropy(column, base=features) if column.sum() else 0.0
        for column in share.T
    ]
    return disentanglement, np.mean(completeness), np.mean(accuracy)


@hypothesis.given(
    st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(2, 5), st.floats(0, 0.9)
)
def test_dci_is_its_definition(seed, features, factors, zeros):
    rng = np.random.default_rng(seed)
    importance = rng.exponential(size=(features, factors)) ** 3
    importance *= rng.random(importance.shape) > zeros
    accuracy = rng.random(factors)
    found = dci(importance, accuracy)
    assert found == pytest.approx(oracle(importance, accuracy), abs=1e-9)
    assert np.all(np.array(found) >= -1e-9) and np.all(np.array(found) <= 1 + 1e-9)
    # Neither a factor's scale nor the order of features or factors matters.
    rows, columns = rng.permutation(features), rng.permutation(factors)
    scaled = importance[rows][:, columns] * rng.uniform(0.5, 2, factors)
    assert dci(scaled, accuracy) == pytest.approx(found, abs=1e-9)


def test_extremes():
    assert dci(np.eye(4)[:, :3], np.ones(3)) == (1.0, 1.0, 1.0)
    assert dci(np.ones((4, 3)), np.full(3, 0.5)) == pytest.approx((0, 0, 0.5), abs=1e-12)
    # Two features for each factor: pure, but spread over half of all.
    assert dci(np.repeat(np.eye(2), 2, axis=0), np.ones(2)) == pytest.approx((1, 0.5, 1))
    assert dci(np.zeros((4, 3)), np.full(3, 0.3)) == pytest.approx((0, 0, 0.3))
