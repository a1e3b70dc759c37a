"""A whole split through the model and back."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from pivq_jax.data.images import images_to_float, images_to_uint8
from pivq_jax.data.pipeline import eval_batches
from pivq_jax.data.sources import Example, Source
from pivq_jax.evaluation.ssim import WINDOW, ssim
from pivq_jax.inference import TrainedModel
from pivq_jax.losses.reconstruction import psnr


class Reconstructions(NamedTuple):
    """What `reconstruct_split` found, one row an image, in the split's order.

    Errors are those of uint8-rounded output.
    """

    codes: np.ndarray  # int32 [M, N]
    psnr: np.ndarray  # f32 [M], dB
    l1: np.ndarray  # f32 [M], mean absolute error, pixels in [-1, 1]
    ssim: np.ndarray  # f32 [M]; NaN where images are smaller than its window


def reconstruct_split(model: TrainedModel, source: Source, batch_size: int) -> Reconstructions:
    """Encode and decode every image of a split, `batch_size` at a time."""
    parts: list[tuple[np.ndarray, ...]] = []
    for batch in eval_batches(source, batch_size):
        codes = model.encode(images_to_float(batch["image"]))
        rounded = images_to_uint8(model.decode(codes))
        originals = jnp.asarray(batch["image"])
        seen, wanted = images_to_float(rounded), images_to_float(originals)
        error = jnp.mean(jnp.abs(seen - wanted), (1, 2, 3))
        fits = min(originals.shape[1:3]) >= WINDOW
        similarity = ssim(seen, wanted) if fits else jnp.full(len(seen), jnp.nan)
        values = (codes, psnr(rounded, originals, 255.0), error, similarity)
        parts.append(tuple(np.asarray(value)[batch["mask"]] for value in values))
    return Reconstructions(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def encode_split(
    model: TrainedModel, source: Source | Sequence[Example], batch_size: int
) -> np.ndarray:
    """The codes of every image of a split, int32 [M, N], in its order."""
    return np.concatenate(
        [
            np.asarray(model.encode(images_to_float(batch["image"])))[batch["mask"]]
            for batch in eval_batches(source, batch_size)
        ]
    )


def decode_batches(model: TrainedModel, codes: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Codes int32 [M, N] -> images uint8 [m, H, W, 3], m at most `batch_size`, compiled once."""
    for start in range(0, len(codes), batch_size):
        batch = codes[start : start + batch_size]
        filled = np.resize(batch, (batch_size, codes.shape[1]))
        yield np.asarray(images_to_uint8(model.decode(filled)))[: len(batch)]


def decode_batched(model: TrainedModel, codes: np.ndarray, batch_size: int) -> np.ndarray:
    """Codes int32 [M, N] -> images uint8 [M, H, W, 3]."""
    return np.concatenate(list(decode_batches(model, codes, batch_size)))
