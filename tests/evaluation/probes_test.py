"""Probes are the optimum that scikit-learn finds, and say something defined on every input."""

import hypothesis
import numpy as np
import pytest
import sklearn.linear_model
import sklearn.metrics
from hypothesis import strategies as st

from pivq_jax.common.errors import InputError
from pivq_jax.evaluation import logistic, probes
from pivq_jax.evaluation.probes import Labelled
from pivq_jax.sampling import CodeSpace

FACTORS = {"two": ("a", "b"), "three": ("x", "y", "z"), "four": ("p", "q", "r", "s")}
SIZES = [len(values) for values in FACTORS.values()]
FEATURES = 12


def problem(images, seed, shift=2.0):
    """Correlated features far from zero, noisy labels, unequal classes."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(images, FEATURES)) * np.linspace(0.5, 2, FEATURES)
    features[:, 1] += 0.7 * features[:, 0]
    labels = []
    for a, classes in enumerate(SIZES):
        scores = features @ np.random.default_rng(a).normal(size=(FEATURES, classes))
        scores += 3 * rng.gumbel(size=scores.shape) + np.linspace(0, 3, classes)
        labels.append(scores.argmax(1))
    return Labelled((features + shift).astype(np.float32), np.stack(labels, 1))


def image_shares(labels):
    """Each class of one attribute weighs the same, all images together 1."""
    sizes = np.bincount(labels)
    return 1 / ((sizes > 0).sum() * sizes[labels])


def least_zero_penalty(features, labels, classes):
    """The largest absolute gradient at zero weights, where the best bias gives equal chances."""
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    missed = 1 / classes - np.eye(classes)[labels]
    return np.abs(centred.T @ (image_shares(labels)[:, None] * missed)).max()


def objective(weights, bias, features, labels, strength):
    scores = features.astype(np.float64) @ weights + bias
    chosen = scores[np.arange(len(labels)), labels]
    entropy = np.logaddexp.reduce(scores, axis=1) - chosen
    return image_shares(labels) @ entropy + strength * np.abs(weights).sum()


def sklearn_fit(features, labels, strength):
    model = sklearn.linear_model.LogisticRegression(
        solver="saga", l1_ratio=1.0, C=1 / strength, tol=1e-6, max_iter=20_000
    )
    mean = features.mean(0, dtype=np.float64)
    model.fit(features - mean, labels, sample_weight=image_shares(labels))
    weights, bias = model.coef_.T, model.intercept_
    if weights.shape[1] == 1:  # the same objective: only the difference of two classes counts
        weights, bias = np.hstack([-weights, weights]) / 2, np.hstack([-bias, bias]) / 2
    return weights, bias - mean @ weights


def test_fit_is_the_optimum_of_scikit_learn(monkeypatch):
    penalty = 0.3
    monkeypatch.setattr(logistic, "TOLERANCE", 0.005)  # no other test has data of this shape
    data = problem(400, seed=1)
    start = probes.fit_probes(data, SIZES, 0.5)
    strengths, optima = [], []
    for a, classes in enumerate(SIZES):
        labels = data.labels[:, a]
        strengths.append(penalty * least_zero_penalty(data.features, labels, classes))
        optima.append(sklearn_fit(data.features, labels, strengths[a]))
    for fit in (
        probes.fit_probes(data, SIZES, penalty),
        probes.fit_probes(data, SIZES, penalty, start),
    ):
        assert fit.converged.all() and fit.weights.shape == (FEATURES, 3, 4)
        for a, classes in enumerate(SIZES):
            labels, strength, expected = data.labels[:, a], strengths[a], optima[a]
            weights, bias = fit.weights[:, a, :classes], fit.bias[a, :classes]
            assert not fit.weights[:, a, classes:].any()
            assert np.all(fit.bias[a, classes:] == -np.inf)
            ours = objective(weights, bias, data.features, labels, strength)
            theirs = objective(*expected, data.features, labels, strength)
            assert ours == pytest.approx(theirs, rel=2e-4)
            scale = np.abs(expected[0]).max()
            np.testing.assert_allclose(
                np.abs(weights).sum(1), np.abs(expected[0]).sum(1), atol=0.01 * scale
            )


def test_all_weights_are_zero_at_the_full_penalty():
    data = problem(300, seed=2)
    assert not probes.fit_probes(data, SIZES, 1.001).weights.any()
    assert probes.fit_probes(data, SIZES, 0.9).weights.any((0, 2)).all()


@hypothesis.given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1))
def test_balanced_accuracy_is_that_of_scikit_learn(pairs):
    labels, predictions = np.array(pairs).T
    # scikit-learn too leaves out classes that only the predictions have, but warns of them.
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(UserWarning)
        expected = sklearn.metrics.balanced_accuracy_score(labels, predictions)
    (value,), (error,) = probes.balanced_accuracy(labels[:, None], predictions[:, None])
    assert value == pytest.approx(expected)
    assert 0 <= error <= 0.5


def test_standard_error_is_the_spread_over_test_sets():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [40, 160])[:, None].repeat(2000, 1)
    recall = np.array([0.6, 0.9])[labels]
    predictions = np.where(rng.random(labels.shape) < recall, labels, 2)
    accuracy, error = probes.balanced_accuracy(labels, predictions)
    assert accuracy.std() == pytest.approx(error.mean(), rel=0.06)


def test_code_features():
    codes = np.array([[0, 2, 2], [4, 1, 0]])
    counts, others = probes.code_features(CodeSpace(3, 5, "nearest"), [codes, codes[1:]])
    np.testing.assert_array_equal(counts, [np.bincount(row, minlength=5) for row in codes])
    np.testing.assert_array_equal(others, counts[1:])
    assert counts.dtype == np.uint8
    alike = probes.code_features(CodeSpace(300, 5, "nearest"), [np.full((1, 300), 3)])[0]
    assert alike.tolist() == [[0, 0, 0, 300, 0]]
    placed = probes.code_features(CodeSpace(3, 5, "positional"), [codes])[0].reshape(2, 3, 5)
    np.testing.assert_array_equal(placed.argmax(-1), codes)
    np.testing.assert_array_equal(placed.sum(-1), 1)


@pytest.mark.parametrize("kind", ["positional", "nearest"])
def test_of_many_features_the_frequent_ones_are_kept(monkeypatch, kind):
    rng = np.random.default_rng(0)
    train, other = rng.geometric(0.3, (200, 6)) % 40, rng.integers(0, 40, (50, 6))
    whole, whole_other = probes.code_features(CodeSpace(6, 40, kind), [train, other])
    monkeypatch.setattr(probes, "MAX_CODE_FEATURES", 30)
    kept, kept_other = probes.code_features(CodeSpace(6, 40, kind), [train, other])
    assert kept.shape == (len(train), 30) and kept_other.shape == (len(other), 30)
    frequent = np.sort(np.argsort(-whole.sum(0, dtype=float), kind="stable")[:30])
    np.testing.assert_array_equal(kept, whole[:, frequent])
    np.testing.assert_array_equal(kept_other, whole_other[:, frequent])


def test_latents_are_white_whatever_their_scales():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(500, 3, 4)).astype(np.float32) + 1
    latents[:, :, 3] = -latents[:, :, :3].sum(-1)  # as layer norm leaves them: one direction less
    train, other = probes.latent_features([latents, latents[:100] + 0.5])
    assert train.shape == (500, 12) and other.shape == (100, 12) and train.dtype == np.float32
    for block in train.reshape(500, 3, 4).swapaxes(0, 1):
        covariance = np.cov(block.T, bias=True)
        np.testing.assert_allclose(np.diag(covariance), [0, 1, 1, 1], atol=1e-4)
        np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-4)
    # Any linear recoding of a latent gives the same up to a rotation: inner products stay.
    mixing = rng.normal(size=(3, 4, 4)) * np.array([1, 0.1, 0.01, 1])[:, None]
    recoded = np.einsum("mnd,nde->mne", latents, mixing)
    (again,) = probes.latent_features([recoded])
    np.testing.assert_allclose(again[:50] @ again[:50].T, train[:50] @ train[:50].T, atol=2e-2)


@pytest.fixture(scope="module")
def planted():
    """12 binary features: 0 tells `two`, 1 and 2 tell `three`, nothing tells `four`."""
    splits = []
    for images, seed in ((600, 0), (200, 1), (300, 2)):
        rng = np.random.default_rng(seed)
        features = (rng.random((images, FEATURES)) < 0.3).astype(np.float32)
        features[:, 5] = 1.0  # constant
        three = np.where(features[:, 1] > 0, 1, np.where(features[:, 2] > 0, 2, 0))
        four = rng.integers(0, 4, images)
        splits.append(Labelled(features, np.stack([features[:, 0].astype(int), three, four], 1)))
    return splits


def test_planted_attributes_are_found_and_noise_is_not(planted):
    result = probes.probe_attributes(*planted, FACTORS)
    assert result.names == tuple(FACTORS) and result.left_out == {}
    assert result.accuracy[:2] == pytest.approx([1.0, 1.0]) and result.converged.all()
    assert abs(result.accuracy[2] - 0.25) < 4 * result.error[2]
    assert result.majority == pytest.approx([1 / 2, 1 / 3, 1 / 4])
    assert result.importance.shape == (FEATURES, 3) and not result.importance[5].any()
    assert result.importance[0, 0] > 0.99 * result.importance[:, 0].sum()
    assert result.importance[[1, 2], 1].sum() > 0.9 * result.importance[:, 1].sum()


def test_counts_in_parts_are_probed_as_floats_at_once(planted, monkeypatch):
    expected = probes.probe_attributes(*planted, FACTORS)
    counts = [data._replace(features=data.features.astype(np.uint8)) for data in planted]
    monkeypatch.setattr(probes, "_AT_ONCE", 1_000)
    found = probes.probe_attributes(*counts, FACTORS)
    for name, values in expected._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), values, name)


def test_the_strongest_of_the_best_penalties_is_chosen(planted):
    train, validation, test = planted
    result = probes.probe_attributes(train, validation, test, FACTORS)
    fits, scores = [], []
    for penalty in probes.PENALTIES:
        fits.append(probes.fit_probes(train, SIZES, penalty, fits[-1] if fits else None))
        found = probes.predict(fits[-1], validation.features)
        pairs = zip(validation.labels.T, found.T, strict=True)
        scores.append([sklearn.metrics.balanced_accuracy_score(*pair) for pair in pairs])
    for a, best in enumerate(np.argmax(scores, axis=0)):
        weights = np.abs(fits[best].weights[:, a]).sum(-1)
        np.testing.assert_allclose(
            result.importance[:, a], weights * train.features.std(0), rtol=1e-4, atol=1e-5
        )


def relabel(data, column, change):
    labels = data.labels.copy()
    labels[:, column] = change(labels[:, column])
    return Labelled(data.features, labels)


def test_classes_that_a_split_lacks(planted):
    train, validation, test = planted
    # Training lacks class 2 of `three`: never predicted, its test images are missed.
    small = relabel(train, 1, lambda c: np.where(c == 2, 0, c))
    result = probes.probe_attributes(small, validation, test, FACTORS)
    assert result.accuracy[1] == pytest.approx(2 / 3)
    # The test lacks class 1: only the other two count.
    few = Labelled(*(x[test.labels[:, 1] != 1] for x in test))
    assert probes.probe_attributes(train, validation, few, FACTORS).accuracy[1] == 1.0


@pytest.mark.parametrize(
    ("split", "values", "message"),
    [
        (0, [3], "every training image has three = z"),
        (1, [3], "every validation image has three = z"),
        (2, [3, 0], "every test image has three = z"),
        (2, [0], "no test image has a known value of three"),
    ],
)
def test_an_attribute_of_no_or_one_known_class_is_left_out(planted, split, values, message):
    factors = {**FACTORS, "three": ("unknown", *FACTORS["three"])}
    splits = [relabel(data, 1, lambda c: c + 1) for data in planted]
    splits[split] = relabel(splits[split], 1, lambda c: np.resize(values, len(c)))
    result = probes.probe_attributes(*splits, factors)
    assert result.left_out == {"three": message} and result.names == ("two", "four")
    assert len(result.accuracy) == 2 and result.importance.shape[1] == 2
    assert result.accuracy[0] == 1.0


def test_images_of_unknown_value_are_left_out_of_its_probe(planted):
    """As if they were not there, while the other attributes have them."""
    rng = np.random.default_rng(3)
    known = [rng.random(len(data.labels)) < 0.6 for data in planted]
    factors = {**FACTORS, "three": ("unknown", *FACTORS["three"])}
    pairs = [*zip(planted, known, strict=True)]
    hidden = [relabel(data, 1, lambda c, k=k: np.where(k, c + 1, 0)) for data, k in pairs]
    result = probes.probe_attributes(*hidden, factors)
    assert result.names == tuple(FACTORS) and result.converged.all()
    fewer = [Labelled(data.features[k], data.labels[k][:, 1:2]) for data, k in pairs]
    alone = probes.probe_attributes(*fewer, {"three": FACTORS["three"]})
    for name in ("accuracy", "error", "majority"):
        assert getattr(result, name)[1] == getattr(alone, name)[0]
    whole = probes.probe_attributes(*planted, FACTORS)
    np.testing.assert_array_equal(result.accuracy[[0, 2]], whole.accuracy[[0, 2]])
    column = np.where(known[0], planted[0].labels[:, 1], -1)[:, None]
    found = probes.fit_probes(Labelled(planted[0].features, column), [3], 0.1)
    expected = probes.fit_probes(fewer[0], [3], 0.1)
    np.testing.assert_allclose(found.weights, expected.weights, atol=2e-2)


def test_what_cannot_be_probed_is_refused(planted):
    train, validation, test = planted
    alike = train._replace(features=0 * train.features)
    with pytest.raises(InputError, match="the same features"):
        probes.probe_attributes(alike, validation, test, FACTORS)
    one = [Labelled(data.features, 0 * data.labels[:, :1]) for data in planted]
    with pytest.raises(InputError, match="no attribute to probe: every training image"):
        probes.probe_attributes(*one, {"two": "ab"})
