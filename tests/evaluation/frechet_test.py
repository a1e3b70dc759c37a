"""Fréchet distance against pytorch-fid, the defining formula and closed forms."""

import hypothesis
import numpy as np
import pytest
import scipy.linalg
from hypothesis import strategies as st

from pivq_jax.common.errors import InputError
from pivq_jax.evaluation import frechet
from pivq_jax.evaluation.frechet import frechet_distance


def gaussian(seed, size, rank=None, scale=1.0):
    """A mean and a covariance of this rank."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(size, rank or 2 * size)) * scale
    return rng.normal(size=size), factor @ factor.T / factor.shape[1]


def rotation(seed, size):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


@pytest.mark.parametrize("size", [2, 64])
def test_equals_pytorch_fid_on_gaussians(pytorch_fid, size):
    first, second = gaussian(size, size), gaussian(size + 1, size, scale=1.3)
    expected = pytorch_fid(*first, *second)
    assert frechet._distance(*first, *second) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [2, 3000])
def test_equals_the_defining_formula_on_features(count):
    rng = np.random.default_rng(count)
    far = 1000 * rng.normal(size=5)
    real, fake = (far + scale * rng.normal(size=(count, 5)) for scale in (1, 2))
    real, fake = real.astype(np.float32), fake.astype(np.float32)
    (mu1, sigma1), (mu2, sigma2) = (
        (x.mean(0, dtype=np.float64), np.cov(x, rowvar=False, dtype=np.float64))
        for x in (real, fake)
    )
    overlap = np.sum(np.sqrt(scipy.linalg.eigvals(sigma1 @ sigma2))).real
    expected = np.sum((mu1 - mu2) ** 2) + np.trace(sigma1 + sigma2) - 2 * overlap
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("ranks", [(40, 17), (1, 1), (0, 12)])
def test_singular_covariances_with_common_axes(ranks):
    # Then the distance is the sum of (sqrt(a) - sqrt(b))**2 over pairs of eigenvalues.
    size, rng = 40, np.random.default_rng(3)
    axes = rotation(4, size)
    eigenvalues = [np.where(np.arange(size) < r, rng.uniform(1e-4, 50, size), 0) for r in ranks]
    eigenvalues[1] = rng.permutation(eigenvalues[1])
    sigmas = [axes * values @ axes.T for values in eigenvalues]
    mu = rng.normal(size=(2, size))
    expected = np.sum((mu[0] - mu[1]) ** 2)
    expected += np.sum(np.subtract(*np.sqrt(eigenvalues)) ** 2)
    distance = frechet._distance(mu[0], sigmas[0], mu[1], sigmas[1])
    assert distance == pytest.approx(expected, rel=1e-6)


def test_identical_sets_are_at_zero_also_with_fewer_images_than_features():
    features = np.random.default_rng(0).normal(size=(20, 64)).astype(np.float32)
    assert 0 <= frechet_distance(features, features) < 1e-10


@hypothesis.given(st.integers(0, 10**6), st.integers(1, 12), st.floats(0.01, 100))
@hypothesis.settings(max_examples=40)
def test_symmetric_and_invariant_under_motions(seed, size, factor):
    first, second = gaussian(seed, size, rank=max(1, size - 1)), gaussian(seed + 1, size)
    distance = frechet._distance(*first, *second)
    assert distance >= 0
    assert frechet._distance(*second, *first) == pytest.approx(distance, rel=1e-7, abs=1e-9)
    turn = rotation(seed, size)

    def moved(mu, sigma):
        return factor * turn @ mu + 5, factor**2 * turn @ sigma @ turn.T

    result = frechet._distance(*moved(*first), *moved(*second))
    assert result == pytest.approx(factor**2 * distance, rel=1e-6, abs=1e-8 * factor**2)


@pytest.mark.parametrize(
    "fake, words",
    [
        (np.ones((1, 4)), "fake features are of 1 images: at least 2 are needed"),
        (np.ones((3, 5)), "have 4 and 5 numbers per image"),
        (np.ones(4), "give .images, features"),
    ],
)
def test_bad_features_are_named(fake, words):
    with pytest.raises(InputError, match=words):
        frechet_distance(np.eye(4, dtype=np.float32), fake)
