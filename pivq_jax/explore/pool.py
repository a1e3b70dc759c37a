"""Training images with their codes: parents of new faces, and what these are compared with."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pivq_jax.common.output import progress_bar
from pivq_jax.data import Source, first_images
from pivq_jax.inference import POOL_IMAGES, TrainedModel, encode_batches, labels_of

# Images are searched at up to this size: 10,000 of them take 30 MB and some ten milliseconds.
SEARCH_SIZE = 32
# Training images are encoded for this time at most; a large model on a CPU may need a second each.
SECONDS = 60.0


class Pool(NamedTuple):
    """The first M training images, in order."""

    codes: np.ndarray  # int32 [M, N]
    labels: np.ndarray  # int32 [M, A]
    small: np.ndarray  # uint8 [M, s, s, 3], the images at no more than `SEARCH_SIZE` pixels


def encode_pool(model: TrainedModel, source: Source, factors: Sequence[str]) -> Pool:
    """Encodes training images until all are done, `POOL_IMAGES` are, or time is up, which begins
    with the end of the first batch, in which the encoder is compiled.
    """
    images = first_images(source, POOL_IMAGES)
    parts: list[list[np.ndarray]] = []
    end = math.inf
    with progress_bar(desc="encoding training images", total=len(images), unit="image") as bar:
        for batch, codes, _ in encode_batches(model, images):
            values = codes, labels_of(batch, factors), shrink(batch["image"])
            parts.append([np.asarray(x)[batch["mask"]] for x in values])
            bar.update(len(parts[-1][0]))
            end = min(end, time.monotonic() + SECONDS)
            if time.monotonic() >= end:
                break
    joined = [np.concatenate(part) for part in zip(*parts, strict=True)]
    return Pool(joined[0], joined[1], joined[2])


def decoded_pool(model: TrainedModel) -> Pool:
    """The parents of a model and their labels, without pictures, which are yet to be decoded."""
    assert model.parents is not None
    codes = model.parents[:POOL_IMAGES]
    labels = model.labels.values if model.labels else np.empty((len(codes), 0), np.int32)
    size = min(model.config.data.image_size, SEARCH_SIZE)
    return Pool(codes, labels[: len(codes)], np.zeros((len(codes), size, size, 3), np.uint8))


@jax.jit
def shrink(images: jax.Array) -> jax.Array:
    """Resizes images, uint8 [B, S, S, 3], to at most `SEARCH_SIZE` pixels a side, antialiased."""
    size = min(images.shape[1], SEARCH_SIZE)
    shape = (len(images), size, size, 3)
    resized = jax.image.resize(images.astype(jnp.float32), shape, "linear")
    return resized.round().clip(0, 255).astype(jnp.uint8)


@jax.jit
def nearest(image: jax.Array, small: ArrayLike, count: ArrayLike) -> jax.Array:
    """Returns which of the first `count` small images is nearest to a whole one, uint8 [S, S, 3],
    made small.
    """
    small = jnp.asarray(small)
    difference = small.astype(jnp.float32) - shrink(image[None]).astype(jnp.float32)
    distance = jnp.square(difference).sum((1, 2, 3))
    return jnp.argmin(jnp.where(jnp.arange(len(small)) < count, distance, jnp.inf))
