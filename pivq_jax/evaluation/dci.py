"""Disentanglement, completeness and informativeness (DCI) of a representation.

Source: Eastwood and Williams, "A framework for the quantitative evaluation of disentangled
representations", ICLR 2018. The scores are computed from an importance matrix: how much each
feature of the representation matters for predicting each factor.
"""

from typing import NamedTuple

import numpy as np


class DCI(NamedTuple):
    """The three scores, each in [0, 1]; higher is better."""

    disentanglement: float  # whether each feature is important for a single factor only
    completeness: float  # whether each factor is predicted by a single feature only
    informativeness: float  # how well factors are predicted


def dci(importance: np.ndarray, accuracy: np.ndarray) -> DCI:
    """DCI from importances, f64 [F, A] with F and A above 1, and the accuracies [A] of the probes.

    The importances of each factor are scaled to sum to 1, like those of a random forest, so that a
    factor does not count more because its weights are larger. Let R be the scaled matrix:

    - The disentanglement of a feature is `1 - H(R[f] / sum(R[f])) / log(A)`; the mean over features
      is weighted by their sums.
    - The completeness of a factor is `1 - H(R[:, a]) / log(F)`, and 0 for a factor for which no
      feature is important; the mean is over factors.
    - The informativeness is the mean of the accuracies.
    """
    features, factors = importance.shape
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
