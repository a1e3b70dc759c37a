"""Fréchet distance between Gaussians fitted to features; FID for features of Inception."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pivq_jax.common.errors import InputError
from pivq_jax.evaluation.neighbours import as_features

__all__ = ["Moments", "feature_moments", "frechet_distance"]


class Moments(NamedTuple):
    """Moments of feature vectors; pass them as `frechet_distance(*moments_a, *moments_b)`."""

    mean: np.ndarray  # f64 [F]
    covariance: np.ndarray  # f64 [F, F], unbiased: divided by M - 1, like `np.cov`


def feature_moments(features: npt.ArrayLike) -> Moments:
    """Computes mean and covariance of features f32 [M, F], in float64.

    Raises InputError if features are invalid (see `neighbours.as_features`), or of fewer than two
    images, so that the covariance is not defined.
    """
    wide = as_features(features, "features", 2).astype(np.float64)
    mean = wide.mean(axis=0)
    wide -= mean
    return Moments(mean, wide.T @ wide / (len(wide) - 1))


def frechet_distance(
    mu1: npt.ArrayLike, sigma1: npt.ArrayLike, mu2: npt.ArrayLike, sigma2: npt.ArrayLike
) -> float:
    """Squared Fréchet distance between two Gaussians, in float64 (Dowson and Landau 1982).

    The distance is `|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2)`, the squared
    2-Wasserstein distance. FID (Heusel et al. 2017, arXiv 1706.08500) is its value for features of
    Inception. The trace of the root is computed as the sum of the singular values of `S1^1/2
    S2^1/2`, from symmetric eigendecompositions, without the root of a rounded product. It is
    accurate for singular covariances and needs no regularization.

    Covariances of M < F + 1 images are singular. The distance is then still defined but biased
    upwards, as it is to a lesser degree for every M: compare values for equal M only (FID is
    customarily computed with 50,000 images, at least 10,000).

    Means are f64 [F], covariances f64 [F, F]. The distance is at least 0, in squared units of the
    features. Raises InputError if shapes are inconsistent, values are not finite, or a matrix is
    not a covariance.
    """
    mean1, mean2 = np.asarray(mu1, np.float64), np.asarray(mu2, np.float64)
    first, second = np.asarray(sigma1, np.float64), np.asarray(sigma2, np.float64)
    size = mean1.size
    if not size or mean1.shape != (size,) or mean2.shape != (size,):
        raise InputError(f"means have shapes {mean1.shape} and {mean2.shape}: give [F] twice")
    if not (np.all(np.isfinite(mean1)) and np.all(np.isfinite(mean2))):
        raise InputError("a mean holds NaN or infinity: look at the features it comes from")
    root1 = _root(first, size, "sigma1")
    root2 = _root(second, size, "sigma2")
    overlap = np.linalg.svd(root1.T @ root2, compute_uv=False).sum()
    distance = np.sum((mean1 - mean2) ** 2) + np.trace(first) + np.trace(second) - 2 * overlap
    return max(0.0, float(distance))


def _root(sigma: np.ndarray, size: int, name: str) -> np.ndarray:
    """Returns a factor, f64 [F, rank], with `root @ root.T == sigma`."""
    if sigma.shape != (size, size):
        raise InputError(f"{name} has shape {sigma.shape}: give {(size, size)}, as the means have")
    if not np.all(np.isfinite(sigma)):
        raise InputError(f"{name} holds NaN or infinity: look at the features it comes from")
    scale = np.max(np.abs(sigma))
    if np.max(np.abs(sigma - sigma.T)) > 1e-6 * scale:
        raise InputError(f"{name} is not symmetric: give a covariance")
    values, vectors = np.linalg.eigh((sigma + sigma.T) / 2)
    if values[0] < -1e-5 * scale:
        raise InputError(
            f"{name} has the negative eigenvalue {values[0]:.3g}: give a covariance, in float64"
        )
    # Smaller eigenvalues are rounding errors of zeros, and their roots would not be small.
    kept = values > size * np.finfo(np.float64).eps * values[-1]
    return vectors[:, kept] * np.sqrt(values[kept])
