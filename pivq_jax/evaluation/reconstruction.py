"""Reconstructions of a whole split, and how good they are."""

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.common.compilation import compiler_options
from pivq_jax.common.psnr import psnr
from pivq_jax.data.images import images_to_float, images_to_uint8
from pivq_jax.data.sources import Source
from pivq_jax.evaluation.ssim import WINDOW, ssim
from pivq_jax.inference import TrainedModel, encode_batches
from pivq_jax.inference.splits import in_batches
from pivq_jax.losses.perceptual import load_lpips, lpips


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
