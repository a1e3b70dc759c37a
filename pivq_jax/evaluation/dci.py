"""Disentanglement, completeness and informativeness (DCI) of a representation.

Source: Eastwood and Williams, "A framework for the quantitative evaluation of disentangled
representations", ICLR 2018. The scores are computed from an importance matrix: how much each
feature of the representation matters for predicting each factor.
"""

import numpy as np


def dci(importance: np.ndarray, accuracy: np.ndarray) -> dict[str, float]:
    """The scores, each in [0, 1], higher is better; docs/probes.md defines them.

    `importance`, f64 [F, A], F and A above 1, has that of each feature for each factor, and
    `accuracy`, [A], that of the probes.
    """
    features, factors = importance.shape
    matters = importance.sum(0) > 0
    # A factor does not count more because its weights are larger.
    share = importance / np.where(matters, importance.sum(0), 1.0)
    weight = share.sum(1)
    used = weight > 0
    purity = 1 - _entropy(share[used] / weight[used, None]) / np.log(factors)
    focus = np.where(matters, 1 - _entropy(share.T) / np.log(features), 0.0)
    return {
        "disentanglement": float(np.average(purity, weights=weight[used])) if used.any() else 0.0,
        "completeness": float(focus.mean()),
        "informativeness": float(accuracy.mean()),
    }


def _entropy(shares: np.ndarray) -> np.ndarray:
    """Entropy of each row in nats, with 0 log 0 = 0."""
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1.0)), axis=-1)
