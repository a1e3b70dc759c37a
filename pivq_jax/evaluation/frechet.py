"""Fréchet distance between Gaussians fitted to features; FID for features of Inception."""

import numpy as np
import numpy.typing as npt

from pivq_jax.evaluation.neighbours import as_feature_pair

__all__ = ["frechet_distance"]


def frechet_distance(real: npt.ArrayLike, fake: npt.ArrayLike) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets of features, in float64.

    With means m and unbiased covariances S it is `|m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2
    S1^1/2)^1/2)`, the squared 2-Wasserstein distance (Dowson and Landau 1982). FID (Heusel et al.
    2017, arXiv 1706.08500) is its value for features of Inception.

    Covariances of M < F + 1 images are singular. The distance is then still defined but biased
    upwards, as it is to a lesser degree for every M: compare values for equal M only (FID is
    customarily computed with 50,000 images, at least 10,000).

    Features are f32 [M, F] and [L, F] of one network. The distance is at least 0, in squared units
    of the features. Raises InputError if features are invalid, have different F, or are of fewer
    than two images, so that the covariance is not defined.
    """
    real, fake = as_feature_pair(real, fake, "real features", "fake features", 2)
    return _distance(*_moments(real), *_moments(fake))


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean, f64 [F], and covariance, f64 [F, F], which is unbiased as that of `np.cov`."""
    wide = features.astype(np.float64)
    mean = wide.mean(axis=0)
    wide -= mean
    return mean, wide.T @ wide / (len(wide) - 1)


def _distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
    """The distance from moments. The trace of the root is the sum of the singular values of
    `S1^1/2 S2^1/2`, which is accurate for singular covariances and needs no regularization.
    """
    overlap = np.linalg.svd(_root(sigma1).T @ _root(sigma2), compute_uv=False).sum()
    distance = np.sum((mu1 - mu2) ** 2) + np.trace(sigma1) + np.trace(sigma2) - 2 * overlap
    return max(0.0, float(distance))


def _root(sigma: np.ndarray) -> np.ndarray:
    """Returns a factor, f64 [F, rank], with `root @ root.T == sigma`."""
    values, vectors = np.linalg.eigh(sigma)
    # Smaller eigenvalues are rounding errors of zeros, and their roots would not be small.
    kept = values > len(sigma) * np.finfo(np.float64).eps * values[-1]
    return vectors[:, kept] * np.sqrt(values[kept])
