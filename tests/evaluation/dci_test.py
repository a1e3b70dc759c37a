"""DCI against its definition, written anew with SciPy, and against probes by scikit-learn."""

import hypothesis
import numpy as np
import pytest
import scipy.stats
import sklearn.linear_model
import sklearn.metrics
from hypothesis import strategies as st

from pivq_jax.evaluation import attributes
from pivq_jax.evaluation.probes import PENALTIES, Labelled, probe_attributes


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


def sklearn_dci(train, validation, test, num_classes):
    """From images to DCI with scikit-learn's lasso-like logistic regression alone."""
    columns, accuracy = [], []
    deviation = train.features.std(0)
    mean = train.features.mean(0)
    for a, classes in enumerate(num_classes):
        labels = train.labels[:, a]
        weight = sklearn.utils.class_weight.compute_sample_weight("balanced", labels) / len(labels)
        slope = (train.features - mean).T @ (
            weight[:, None] * (1 / classes - np.eye(classes)[labels])
        )
        best = None
        for penalty in PENALTIES:
            model = sklearn.linear_model.LogisticRegression(
                solver="saga", l1_ratio=1.0, C=1 / (penalty * np.abs(slope).max()), tol=1e-5,
                max_iter=5_000,
            )  # fmt: skip
            model.fit(train.features - mean, labels, sample_weight=weight)
            scores = [
                sklearn.metrics.balanced_accuracy_score(
                    data.labels[:, a], model.predict(data.features - mean)
                )
                for data in (validation, test)
            ]
            if best is None or scores[0] > best[0]:
                best = (*scores, np.abs(model.coef_).sum(0) * deviation)
        accuracy.append(best[1])
        columns.append(best[2])
    return oracle(np.stack(columns, 1), accuracy)


@pytest.mark.slow
def test_dci_of_images_is_that_of_scikit_learn():
    factors = {"two": "ab", "three": "abc", "five": "abcde"}
    sizes = [2, 3, 5]
    splits = []
    for images, seed in ((500, 0), (200, 1), (200, 2)):
        rng = np.random.default_rng(seed)
        labels = np.stack([rng.integers(0, size, images) for size in sizes], axis=1)
        # The chance of codes 3 f, 3 f + 1 and 3 f + 2 depends on factor f, and some on another.
        chance = np.random.default_rng(9).beta(0.4, 0.8, size=(5, 3, 3))
        own = chance[labels, np.arange(3)]
        drawn = (0.7 * own + 0.3 * np.roll(own, 1, axis=1)).reshape(images, 9)
        features = np.hstack([rng.random((images, 9)) < drawn, rng.random((images, 3)) < 0.3])
        splits.append(Labelled(features.astype(np.float32), labels))
    result = probe_attributes(*splits, factors)
    assert result.converged.all()
    expected = sklearn_dci(*splits, sizes)
    assert dci(result.importance, result.accuracy) == pytest.approx(expected, abs=0.01)
    assert 0.05 < expected[1] < expected[0] < 0.95  # a case that could tell them apart
