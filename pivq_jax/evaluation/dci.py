"""Disentanglement, completeness and informativeness of a representation.

Eastwood and Williams, "A framework for the quantitative evaluation of disentangled
representations", ICLR 2018. Everything starts from an importance matrix: how much each feature of
the representation matters when each factor is predicted from it.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pivq_jax.common.errors import InputError


class DCI(NamedTuple):
    """The three scores, each in [0, 1], 1 the best."""

    disentanglement: float  # does a feature tell of one factor only?
    completeness: float  # is a factor told by one feature only?
    informativeness: float  # how well are factors predicted?


def dci(importance: npt.ArrayLike, accuracy: npt.ArrayLike) -> DCI:
    """DCI from an importance matrix and the accuracies of the probes it comes from.

    Each factor's importances are first scaled to sum to 1, as a random forest's do, so that no
    factor counts for more because its weights are larger. Then, with R that matrix:

    - a feature's disentanglement is 1 - H(R[f] / sum of R[f]) / log A; the mean over features is
      weighted by their sums. A feature of no importance does not count.
    - a factor's completeness is 1 - H(R[:, a]) / log F, and the mean is over factors. A factor that
      no feature matters for has 0.
    - informativeness is the mean of `accuracy`.

    Args:
      importance: float [F, A] of F features for A factors, finite, at least 0; F and A at least 2.
      accuracy: float [A], in [0, 1].

    Raises:
      InputError: fewer than two features or factors, for which the entropies mean nothing.
      ValueError: shapes that do not fit, or values out of range, NaN among them.
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
    told = importance.sum(0) > 0
    if not told.any():
        return DCI(0.0, 0.0, float(accuracy.mean()))
    share = importance / np.where(told, importance.sum(0), 1.0)
    weight = share.sum(1)
    purity = 1 - _entropy(share[weight > 0] / weight[weight > 0, None]) / np.log(factors)
    focus = np.where(told, 1 - _entropy(share.T) / np.log(features), 0.0)
    return DCI(
        disentanglement=float(np.average(purity, weights=weight[weight > 0])),
        completeness=float(focus.mean()),
        informativeness=float(accuracy.mean()),
    )


def _entropy(shares: np.ndarray) -> np.ndarray:
    """Entropy in nats of each row, with 0 log 0 = 0."""
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1.0)), axis=-1)
