"""Information about labelled attributes in codes and latents: probes and DCI."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.data.sources import Example, Source
from pivq_jax.evaluation.dci import dci
from pivq_jax.evaluation.probes import (
    Labelled,
    ProbeResult,
    code_features,
    latent_features,
    probe_attributes,
)
from pivq_jax.evaluation.reconstruction import encode_batches
from pivq_jax.inference import TrainedModel
from pivq_jax.sampling import CodeSpace

__all__ = ["Encoded", "attribute_metrics", "encode_labelled"]


class Encoded(NamedTuple):
    """Codes, latents and labels of a split.

    Attributes:
        codes: int32 [M, N], as returned by `TrainedModel.encode`.
        latents: f32 [M, N, D], in query order.
        labels: int32 [M, A].
    """

    codes: np.ndarray
    latents: np.ndarray
    labels: np.ndarray


def encode_labelled(
    model: TrainedModel,
    source: Source | Sequence[Example],
    names: Sequence[str],
    batch_size: int,
) -> Encoded:
    """Encodes a split and collects its labels.

    Args:
        model: the trained model.
        source: the images.
        names: the A attributes to collect.
        batch_size: number of images encoded at once.

    Returns:
        An `Encoded`.

    Raises:
        InputError: if the split is empty or lacks a label of `names`.
        ValueError: if an image has no codes.
    """
    if len(source) and (missing := [name for name in names if name not in source[0]]):
        raise InputError(f"the images have no label {', '.join(missing)}: use a labelled data set")
    parts = []
    for batch, codes, latents in encode_batches(model, source, batch_size):
        labels = (
            np.stack([batch[name] for name in names], 1) if names else np.empty((batch_size, 0))
        )
        parts.append([np.asarray(x)[batch["mask"]] for x in (codes, latents, labels)])
    return Encoded(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def attribute_metrics(
    train: Encoded,
    validation: Encoded,
    test: Encoded,
    factors: Mapping[str, Sequence[str]],
    space: CodeSpace,
) -> dict[str, Any]:
    """Probes of every attribute and DCI, from codes and from continuous latents, for a JSON file.

    The result contains:

    - `probe_train_images`, `probe_test_images`: numbers of images;
    - `attributes`: for each attribute, `classes`; `majority`, the balanced accuracy of always
      predicting the most frequent class; and `codes` and `latents`, the balanced accuracies on the
      test images, with their `..._error` (standard error) and `..._converged` (whether the fit
      reached its tolerance, see `probes`);
    - `attributes_left_out`: the reason for each attribute that was not probed;
    - `dci`: `disentanglement`, `completeness` and `informativeness` of `codes` (features: those of
      `code_features`) and `latents` (features: whole latents); empty if fewer than two attributes
      were probed or N = 1.

    No value is NaN.

    Args:
        train: images for fitting the probes.
        validation: images for choosing their penalties.
        test: images for measuring their accuracy.
        factors: names of the classes of each attribute, in the order of the label columns.
        space: the space of the codes.

    Returns:
        The metrics by name.

    Raises:
        InputError: see `probes.probe_attributes`.
    """
    splits = (train, validation, test)
    codes = code_features(space, *(split.codes for split in splits))
    latents = latent_features(*(split.latents for split in splits))
    results = {}
    for name, features in (("codes", codes), ("latents", latents)):
        labelled = [Labelled(x, split.labels) for x, split in zip(features, splits, strict=True)]
        results[name] = probe_attributes(labelled[0], labelled[1], labelled[2], factors)
    by_codes = results["codes"]
    metrics: dict[str, Any] = {
        "probe_train_images": len(train.codes),
        "probe_test_images": len(test.codes),
        "attributes": {},
        "attributes_left_out": by_codes.left_out,
        "dci": {},
    }
    for row, name in enumerate(by_codes.names):
        metrics["attributes"][name] = {
            "classes": len(factors[name]),
            "majority": float(by_codes.majority[row]),
            **{of: float(result.accuracy[row]) for of, result in results.items()},
            **{f"{of}_error": float(result.error[row]) for of, result in results.items()},
            **{f"{of}_converged": bool(result.converged[row]) for of, result in results.items()},
        }
    num_latents = train.latents.shape[1]
    if len(by_codes.names) > 1 and num_latents > 1:
        metrics["dci"] = {
            "codes": _dci(by_codes, by_codes.importance),
            "latents": _dci(results["latents"], _by_latent(results["latents"], num_latents)),
        }
    return metrics


def _by_latent(result: ProbeResult, num_latents: int) -> np.ndarray:
    """Importance of whole latents, f64 [N, P]; the axes of a latent have no meaning."""
    return result.importance.reshape(num_latents, -1, len(result.names)).sum(1)


def _dci(result: ProbeResult, importance: np.ndarray) -> dict[str, float]:
    return dict(dci(importance, result.accuracy)._asdict())
