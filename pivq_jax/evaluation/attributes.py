"""What a model's codes say about labelled attributes: probes and DCI, codes beside latents."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.data.images import images_to_float
from pivq_jax.data.pipeline import eval_batches
from pivq_jax.data.sources import Example, Source
from pivq_jax.evaluation.dci import dci
from pivq_jax.evaluation.probes import (
    Labelled,
    ProbeResult,
    code_features,
    latent_features,
    probe_attributes,
)
from pivq_jax.inference import TrainedModel


class Encoded(NamedTuple):
    """A split through the encoder, one row an image."""

    codes: np.ndarray  # int32 [M, N], as `TrainedModel.encode` gives them
    latents: np.ndarray  # f32 [M, N, D], in query order
    labels: np.ndarray  # int32 [M, A]


def encode_labelled(
    model: TrainedModel,
    source: Source | Sequence[Example],
    names: Sequence[str],
    batch_size: int,
) -> Encoded:
    """Codes, latents and labels of a split.

    Raises:
      InputError: the split is empty or lacks a label of `names`.
      ValueError: an image gives no codes.
    """
    if len(source) and (missing := [name for name in names if name not in source[0]]):
        raise InputError(f"the images have no label {', '.join(missing)}: use a labelled data set")
    parts = []
    for batch in eval_batches(source, batch_size):
        codes, latents = model.encode_with_latents(images_to_float(batch["image"]))
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
    codebook_size: int,
    kind: str,
) -> dict[str, Any]:
    """Probes of every attribute and DCI, from codes and from continuous latents, for a JSON file.

    Args:
      train: what probes are fitted on.
      validation: what their penalties are chosen on.
      test: what they are judged on.
      factors: attribute -> names of its classes, in the order of the labels' columns.
      codebook_size: K.
      kind: of the quantizer.

    Returns:
      `probe_train_images`, `probe_test_images`; `attributes`: for each attribute `classes`,
      `majority` (balanced accuracy of always saying the commonest class), and `codes`, `latents`
      (balanced accuracy on the test images) with their `..._error` (standard error) and
      `..._converged` (whether the fit came to its tolerance, see `probes`); `attributes_left_out`:
      attribute -> reason; `dci`: `disentanglement`, `completeness` and `informativeness` of `codes`
      (features: those of `code_features`) and `latents` (features: whole latents), empty if fewer
      than two attributes were probed or N = 1. No value is NaN.

    Raises:
      InputError: as `probes.probe_attributes`.
    """
    splits = (train, validation, test)
    codes = code_features(codebook_size, kind, *(split.codes for split in splits))
    latents = latent_features(*(split.latents for split in splits))
    found = {}
    for name, features in (("codes", codes), ("latents", latents)):
        labelled = [Labelled(x, split.labels) for x, split in zip(features, splits, strict=True)]
        found[name] = probe_attributes(labelled[0], labelled[1], labelled[2], factors)
    by_codes = found["codes"]
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
            **{of: float(result.accuracy[row]) for of, result in found.items()},
            **{f"{of}_error": float(result.error[row]) for of, result in found.items()},
            **{f"{of}_converged": bool(result.converged[row]) for of, result in found.items()},
        }
    num_latents = train.latents.shape[1]
    if len(by_codes.names) > 1 and num_latents > 1:
        metrics["dci"] = {
            "codes": _dci(by_codes, by_codes.importance),
            "latents": _dci(found["latents"], _by_latent(found["latents"], num_latents)),
        }
    return metrics


def _by_latent(result: ProbeResult, num_latents: int) -> np.ndarray:
    """Importance of whole latents, f64 [N, P]: a latent's own axes mean nothing."""
    return result.importance.reshape(num_latents, -1, len(result.names)).sum(1)


def _dci(result: ProbeResult, importance: np.ndarray) -> dict[str, float]:
    return dict(dci(importance, result.accuracy)._asdict())
