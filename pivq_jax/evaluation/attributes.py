"""Information about labelled attributes in codes and latents: probes and DCI."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.data.pipeline import Batch
from pivq_jax.data.sources import Source
from pivq_jax.evaluation import probes
from pivq_jax.evaluation.dci import dci
from pivq_jax.evaluation.reconstruction import encode_batches
from pivq_jax.inference import TrainedModel
from pivq_jax.sampling import CodeSpace, Labels

__all__ = ["Encoded", "attribute_metrics", "encode_labelled", "labels_of", "with_parents"]


class Encoded(NamedTuple):
    """Codes, latents and labels of a split."""

    codes: np.ndarray  # int32 [M, N], as returned by `TrainedModel.encode`
    latents: np.ndarray  # f32 [M, N / stages, latent_dim]; [M, 0, latent_dim] if not asked for
    labels: np.ndarray  # int32 [M, A]


def labels_of(batch: Batch, names: Sequence[str]) -> np.ndarray:
    """Returns the labels of a batch that have these names, int32 [B, A]."""
    if not names:
        return np.empty((len(batch["mask"]), 0), np.int32)
    return np.stack([batch[name] for name in names], axis=1)


def encode_labelled(
    model: TrainedModel,
    source: Source,
    names: Sequence[str],
    batch_size: int | None = None,
    latents: bool = True,
) -> Encoded:
    """Encodes a split, in batches, and collects its labels that have these names.

    If `latents` is False, the latents, which may take gigabytes, are empty. Raises InputError if
    the split is empty or lacks a label, and ValueError if an image has no codes.
    """
    if len(source) and (missing := [name for name in names if name not in source[0]]):
        raise InputError(f"the images have no label {', '.join(missing)}: use a labelled data set")
    config, parts = model.config.model, []
    count = config.num_latents if latents else 0
    for batch, codes, all_latents in encode_batches(model, source, batch_size):
        # Those of the first stage: what later ones are given to quantize follows from these.
        found = codes, all_latents[:, :count, -config.latent_dim :], labels_of(batch, names)
        parts.append([np.asarray(x)[batch["mask"]] for x in found])
    return Encoded(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def with_parents(
    model: TrainedModel, source: Source, factors: Mapping[str, tuple[str, ...]]
) -> TrainedModel:
    """Returns the model with the images of a split as its parents, labelled if there are factors.

    `factors` are those of the `Dataset`, names of values by factor, or empty. Raises as
    `encode_labelled` does.
    """
    codes, _, values = encode_labelled(model, source, tuple(factors), latents=False)
    labels = Labels(values, factors) if factors else None
    return dataclasses.replace(model, parents=codes, labels=labels)


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
            "classes": len(factors[name]),
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
