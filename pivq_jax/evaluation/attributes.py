"""Information about labelled attributes in codes and latents: probes and DCI."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pivq_jax.common.labels import UNKNOWN
from pivq_jax.evaluation import probes
from pivq_jax.inference import Encoded
from pivq_jax.sampling import CodeSpace

__all__ = ["attribute_metrics"]


def attribute_metrics(
    train: Encoded,
    validation: Encoded,
    test: Encoded,
    factors: Mapping[str, Sequence[str]],
    space: CodeSpace,
) -> dict[str, Any]:
    """Computes probes of each attribute, and DCI, from codes and from latents, for a JSON file.

    Probes are fitted on `train` and measured on `test`; `validation` decides on their penalties.
    `factors` are the names of the classes by attribute, in the order of the label columns.
    The result, without NaN, has what docs/metrics.md and docs/probes.md define; `dci` is empty if
    fewer than two attributes were probed or an image has one latent.

    Raises InputError if there is nothing to probe, or all training images have the same features.
    """
    splits = (train, validation, test)

    def probe(features: Sequence[np.ndarray]) -> probes.ProbeResult:
        labels = (split.labels for split in splits)
        fitted, chosen, measured = map(probes.Labelled, features, labels)
        return probes.probe_attributes(fitted, chosen, measured, factors)

    # One after the other: the features of large codebooks take gigabytes.
    by_codes = probe(probes.code_features(space, [split.codes for split in splits]))
    by_latents = probe(probes.latent_features([split.latents for split in splits]))
    results = {"codes": by_codes, "latents": by_latents}
    metrics: dict[str, Any] = {
        "probe_train_images": len(train.codes),
        "probe_test_images": len(test.codes),
        "attributes": {},
        "attributes_left_out": by_codes.left_out,
        "dci": {},
    }
    for row, name in enumerate(by_codes.names):
        metrics["attributes"][name] = {
            "classes": len({*factors[name]} - {UNKNOWN}),
            "majority": float(by_codes.majority[row]),
            **{kind: float(result.accuracy[row]) for kind, result in results.items()},
            **{f"{kind}_error": float(result.error[row]) for kind, result in results.items()},
            **{f"{kind}_converged": bool(fit.converged[row]) for kind, fit in results.items()},
        }
    count, num_latents = len(by_codes.names), train.latents.shape[1]
    if count > 1 and num_latents > 1:
        # The axes of a latent have no meaning: its importance is that of all of them.
        whole = by_latents.importance.reshape(num_latents, -1, count).sum(1)
        metrics["dci"] = {
            "codes": dci(by_codes.importance, by_codes.accuracy),
            "latents": dci(whole, by_latents.accuracy),
        }
    return metrics


def dci(importance: np.ndarray, accuracy: np.ndarray) -> dict[str, float]:
    """Disentanglement, completeness and informativeness of a representation, each in [0, 1], higher
    is better (Eastwood and Williams, ICLR 2018); docs/probes.md defines them.

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
