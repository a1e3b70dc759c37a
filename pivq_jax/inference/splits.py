"""Encoding and decoding of many images, in batches, and a split of a data set by its codes.

Batches have `batch_size` images, by default as many as those of an evaluation of the model
(`evaluate.batch_size` of its config).
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.data.images import images_to_float, images_to_uint8
from pivq_jax.data.pipeline import Batch, eval_batches
from pivq_jax.data.sources import Example, Source
from pivq_jax.inference.trained_model import TrainedModel
from pivq_jax.sampling import Labels

# Most training images whose codes are used: as parents, for the log lift and to fit probes.
# Encoding them takes seconds on a CPU.
POOL_IMAGES = 10_000
FAR_BELOW = 6.0  # dB: four times the squared error


class Encoded(NamedTuple):
    """Codes, latents and labels of a split."""

    codes: np.ndarray  # int32 [M, N], as returned by `TrainedModel.encode`
    latents: np.ndarray  # float32 [M, N, D]; [M, 0, D] if not asked for
    labels: np.ndarray  # int32 [M, A]


def encode_batches(
    model: TrainedModel, source: Source, batch_size: int | None = None
) -> Iterator[tuple[Batch, jax.Array, jax.Array]]:
    """Yields each batch of a split, int32 codes [B, N] and float32 latents [B, N, D].

    The last batch is padded to the same size: its `mask`, bool [B], is False for the padding.
    """
    for batch in eval_batches(source, batch_size or model.config.evaluate.batch_size):
        codes, latents = model.encode_with_latents(images_to_float(batch["image"]))
        yield batch, codes, latents


def encode_split(model: TrainedModel, source: Source, batch_size: int | None = None) -> np.ndarray:
    """Encodes every image of a split: int32 [M, N], in its order.

    Raises InputError if the split is empty.
    """
    batches = encode_batches(model, source, batch_size)
    return np.concatenate([np.asarray(codes)[batch["mask"]] for batch, codes, _ in batches])


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
    parts, count = [], model.space.num_codes if latents else 0
    for batch, codes, all_latents in encode_batches(model, source, batch_size):
        values = codes, all_latents[:, :count], labels_of(batch, names)
        parts.append([np.asarray(x)[batch["mask"]] for x in values])
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


def in_batches(rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Yields rows in batches of constant shape; the last one is filled up: cut what it gives."""
    for start in range(0, len(rows), batch_size):
        yield np.resize(rows[start : start + batch_size], (batch_size, *rows.shape[1:]))


def decode_batches(
    model: TrainedModel, codes: np.ndarray, batch_size: int | None = None
) -> Iterator[np.ndarray]:
    """Decodes codes [M, N] in batches; yields uint8 [m, H, W, 3]."""
    remaining = len(codes)
    for batch in in_batches(codes, batch_size or model.config.evaluate.batch_size):
        yield np.asarray(images_to_uint8(model.decode(batch)))[:remaining]
        remaining -= len(batch)


def decode_batched(
    model: TrainedModel, codes: np.ndarray, batch_size: int | None = None
) -> np.ndarray:
    """Decodes codes int32 [M, N], M at least 1, in batches: uint8 [M, H, W, 3]."""
    return np.concatenate(list(decode_batches(model, codes, batch_size)))


def images_of(source: Source, indices: Iterable[int]) -> np.ndarray:
    """Some images of a split, uint8 [M, H, W, 3]."""
    return np.stack([source[int(index)]["image"] for index in indices])


def describe_psnr(model: TrainedModel, psnrs: np.ndarray) -> list[str]:
    """Says how well images were reconstructed, with PSNR f32 [M] in dB, beside the model's own.

    Returns a line with the mean and, if that is far below the model's own, one with a warning.
    """
    mean, own = float(np.mean(psnrs)), model.metrics.get("psnr")
    if not isinstance(own, int | float) or not abs(own) < 1_000:  # a file may hold anything
        return [f"mean PSNR {mean:.1f} dB"]
    lines = [f"mean PSNR {mean:.1f} dB; {own:.1f} dB on the test images of the model"]
    if mean < own - FAR_BELOW:
        lines.append(
            "warning: the model does not know such images, and its codes do not hold them: use a"
            " model trained on images of their kind, cropped alike"
        )
    return lines


class Decoded:
    """The images of `codes`, int32 [M, N], and their labels: a `Source` that decodes one by one."""

    def __init__(
        self, model: TrainedModel, codes: np.ndarray, labels: Labels | None = None
    ) -> None:
        self._model, self.codes, self._labels = model, codes, labels

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: int, /) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        image = decode_batched(self._model, self.codes[index][None], 1)[0]
        if self._labels is None:
            return {"image": image}
        values = self._labels.values[index].tolist()
        return {"image": image, **dict(zip(self._labels.factors, values, strict=True))}
