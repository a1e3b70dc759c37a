"""Disentanglement, completeness and informativeness (DCI) of a representation.

Source: Eastwood and Williams, "A framework for the quantitative evaluation of disentangled
representations", ICLR 2018. The scores are computed from an importance matrix: how much each
feature of the representation matters for predicting each factor.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pivq_jax.common.errors import InputError

__all__ = ["DCI", "dci"]


class DCI(NamedTuple):
    """The three scores, each in [0, 1]; higher is better."""

    disentanglement: float  # whether each feature is important for a single factor only
    completeness: float  # whether each factor is predicted by a single feature only
    informativeness: float  # how well factors are predicted


def dci(importance: npt.ArrayLike, accuracy: npt.ArrayLike) -> DCI:
    """Computes DCI from an importance matrix and the accuracies of the probes that it comes from.

    The importances of each factor are first scaled to sum to 1, like those of a random forest, so
    that a factor does not count more because its weights are larger. Let R be the scaled matrix:

    - The disentanglement of a feature is `1 - H(R[f] / sum(R[f])) / log(A)`; the mean over features
      is weighted by their sums. Features without importance do not count.
    - The completeness of a factor is `1 - H(R[:, a]) / log(F)`; the mean is over factors. It is 0
      for a factor for which no feature is important.
    - The informativeness is the mean of `accuracy`.

    `importance` is float [F, A], of F features for A factors, at least 0, and `accuracy` float [A]
    in [0, 1]. Raises InputError if there are fewer than two features or factors, for which the
    entropies are not defined, and ValueError if shapes are inconsistent, or values out of range or
    NaN.
    """
    importance = np.asarray(importance, np.float64)
    accuracy = np.asarray(accuracy, np.float64)
    if importance.ndim != 2 or accuracy.shape != importance.shape[1:]:
        raise ValueError(
            f"importance {importance.shape}, accuracy {accuracy.shape}: give [F, A], [A]"
        )
    features, factors = importance.shape
    if features < 2 or factors < 2:
        raise InputError(
            f"DCI of {features} features and {factors} factors: give at least two of each"
        )
    if not (np.isfinite(importance).all() and (importance >= 0).all()):
        raise ValueError("importance has negative or non-finite values: give absolute weights")
    if not ((accuracy >= 0).all() and (accuracy <= 1).all()):  # also refuses NaN
        raise ValueError(f"accuracy is {accuracy}: give shares in [0, 1]")
    matters = importance.sum(0) > 0
    if not matters.any():
        return DCI(0.0, 0.0, float(accuracy.mean()))
    share = importance / np.where(matters, importance.sum(0), 1.0)
    weight = share.sum(1)
    purity = 1 - _entropy(share[weight > 0] / weight[weight > 0, None]) / np.log(factors)
    focus = np.where(matters, 1 - _entropy(share.T) / np.log(features), 0.0)
    return DCI(
        disentanglement=float(np.average(purity, weights=weight[weight > 0])),
        completeness=float(focus.mean()),
        informativeness=float(accuracy.mean()),
    )


def _entropy(shares: np.ndarray) -> np.ndarray:
    """Entropy of each row in nats, with 0 log 0 = 0."""
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1.0)), axis=-1)
