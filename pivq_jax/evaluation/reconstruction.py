"""Encoding, decoding and reconstruction of a whole split.

Batches have `batch_size` images, by default as many as those of an evaluation of the model
(`evaluate.batch_size` of its config).
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.common.compilation import compiler_options
from pivq_jax.data.images import images_to_float, images_to_uint8
from pivq_jax.data.pipeline import Batch, eval_batches
from pivq_jax.data.sources import Example, Source
from pivq_jax.evaluation.ssim import WINDOW, ssim
from pivq_jax.inference import TrainedModel
from pivq_jax.losses.perceptual import load_lpips, lpips
from pivq_jax.losses.reconstruction import psnr
from pivq_jax.sampling import Labels

__all__ = [
    "POOL_IMAGES",
    "Decoded",
    "decode_batched",
    "decode_batches",
    "describe_psnr",
    "encode_batches",
    "encode_split",
    "images_of",
    "psnr_of",
]

# Most training images whose codes are used: as parents, for the log lift and to fit probes.
# Encoding them takes seconds on a CPU.
POOL_IMAGES = 10_000
FAR_BELOW = 6.0  # dB: four times the squared error


class Reconstructions(NamedTuple):
    """Reconstructions of a split, in its order; errors are those of output rounded to uint8."""

    codes: np.ndarray  # int32 [M, N]
    psnr: np.ndarray  # f32 [M], in dB
    l1: np.ndarray  # f32 [M], mean absolute error of pixels in [-1, 1]
    ssim: np.ndarray  # f32 [M]; NaN if images are smaller than its window


def reconstruct_split(model: TrainedModel, source: Source) -> Reconstructions:
    """Encodes and decodes every image of a split; raises InputError if it is empty."""
    parts: list[tuple[np.ndarray, ...]] = []
    for batch, codes, _ in encode_batches(model, source):
        rounded = images_to_uint8(model.decode(codes))
        originals = jnp.asarray(batch["image"])
        seen, wanted = images_to_float(rounded), images_to_float(originals)
        error = jnp.mean(jnp.abs(seen - wanted), (1, 2, 3))
        fits = min(originals.shape[1:3]) >= WINDOW
        similarity = ssim(seen, wanted) if fits else jnp.full(len(seen), jnp.nan)
        values = (codes, psnr(rounded, originals, 255.0), error, similarity)
        parts.append(tuple(np.asarray(value)[batch["mask"]] for value in values))
    return Reconstructions(*(np.concatenate(part) for part in zip(*parts, strict=True)))


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


def in_batches(rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Yields rows in batches of constant shape; the last one is filled up: cut what it gives."""
    for start in range(0, len(rows), batch_size):
        yield np.resize(rows[start : start + batch_size], (batch_size, *rows.shape[1:]))


def decode_batches(
    model: TrainedModel, codes: np.ndarray, batch_size: int | None = None
) -> Iterator[np.ndarray]:
    """Decodes codes [M, N] in batches; yields uint8 [m, H, W, 3]."""
    left = len(codes)
    for batch in in_batches(codes, batch_size or model.config.evaluate.batch_size):
        yield np.asarray(images_to_uint8(model.decode(batch)))[:left]
        left -= len(batch)


def decode_batched(
    model: TrainedModel, codes: np.ndarray, batch_size: int | None = None
) -> np.ndarray:
    """Decodes codes int32 [M, N], M at least 1, in batches: uint8 [M, H, W, 3]."""
    return np.concatenate(list(decode_batches(model, codes, batch_size)))


def images_of(source: Source, indices: Iterable[int]) -> np.ndarray:
    """Some images of a split, uint8 [M, H, W, 3]."""
    return np.stack([source[int(index)]["image"] for index in indices])


def psnr_of(images: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """The PSNR of images, uint8 [M, H, W, 3], against their originals, in dB: float32 [M]."""
    return np.asarray(psnr(jnp.asarray(images), jnp.asarray(originals), 255.0))


def mean_lpips(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], batch_size: int, path: str = ""
) -> float:
    """The mean LPIPS distance, with AlexNet, of images and their reconstructions.

    Both are uint8 [m, H, W, 3] in each pair, m at most `batch_size`; for `path` see `load_lpips`.
    """
    weights, distances = load_lpips("alex", path), []
    for pair in pairs:
        shown, made = (next(in_batches(part, batch_size)) for part in pair)
        found = _lpips_program()(weights, images_to_float(made), images_to_float(shown))
        distances.append(np.asarray(found)[: len(pair[0])])
    return float(np.mean(np.concatenate(distances)))


@cache
def _lpips_program() -> Callable[..., jax.Array]:
    return jax.jit(partial(lpips, network="alex"), compiler_options=compiler_options())


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
    """The images of codes, int32 [M, N], and their labels as a `Source` that decodes one by one."""

    def __init__(
        self, model: TrainedModel, codes: np.ndarray, labels: Labels | None = None
    ) -> None:
        self._model, self._codes, self._labels = model, codes, labels

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, index: int, /) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        image = decode_batched(self._model, self._codes[index][None], 1)[0]
        if self._labels is None:
            return {"image": image}
        values = self._labels.values[index].tolist()
        return {"image": image, **dict(zip(self._labels.factors, values, strict=True))}
