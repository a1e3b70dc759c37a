"""A whole split through the model and back."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from pivq_jax.data.images import images_to_float, images_to_uint8
from pivq_jax.data.pipeline import eval_batches
from pivq_jax.data.sources import Source
from pivq_jax.inference import TrainedModel
from pivq_jax.losses.reconstruction import psnr


class Reconstructions(NamedTuple):
    """What `reconstruct_split` found, one row an image, in the split's order."""

    codes: np.ndarray  # int32 [M, N]
    psnr: np.ndarray  # f32 [M], dB, of uint8-rounded output
    l1: np.ndarray  # f32 [M], mean absolute error of uint8-rounded output, pixels in [-1, 1]


def reconstruct_split(model: TrainedModel, source: Source, batch_size: int) -> Reconstructions:
    """Encode and decode every image of a split, one batch at a time."""
    parts: list[tuple[np.ndarray, ...]] = []
    for batch in eval_batches(source, batch_size):
        codes = model.encode(images_to_float(batch["image"]))
        rounded = images_to_uint8(model.decode(codes))
        originals = jnp.asarray(batch["image"])
        error = images_to_float(rounded) - images_to_float(originals)
        values = (codes, psnr(rounded, originals, 255.0), jnp.mean(jnp.abs(error), (1, 2, 3)))
        parts.append(tuple(np.asarray(value)[batch["mask"]] for value in values))
    return Reconstructions(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def encode_split(
    model: TrainedModel, source: Source | list[dict[str, np.ndarray]], batch_size: int
) -> np.ndarray:
    """The codes of every image of a split, int32 [M, N], in its order."""
    return np.concatenate(
        [
            np.asarray(model.encode(images_to_float(batch["image"])))[batch["mask"]]
            for batch in eval_batches(source, batch_size)
        ]
    )


def decode_batched(model: TrainedModel, codes: np.ndarray, batch_size: int) -> np.ndarray:
    """Codes int32 [M, N] -> images uint8 [M, H, W, 3]; batches of one shape compile once."""
    images = []
    for start in range(0, len(codes), batch_size):
        batch = codes[start : start + batch_size]
        filled = np.resize(batch, (batch_size, codes.shape[1]))
        images.append(np.asarray(images_to_uint8(model.decode(filled)))[: len(batch)])
    return np.concatenate(images)
