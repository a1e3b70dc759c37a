"""The copied share: how much of an image can be seen, at the same place, in one training image."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.common.errors import InputError

PATCH = 8  # pixels of a side
SIDE = 64  # larger images are reduced to this many pixels of a side, or less than twice as many
LIMIT_DB = 30.0
COPIES = 500  # images whose share an evaluation computes: the mean is known to half a percent
# Of patches that deviate less from their means, more than a quarter may go unexplained within the
# limit, of flat ones all: many images would explain them.
LEAST_EXCESS = 4.0
# Training images compared at once: their products with 1,000 images fit into a CPU's cache.
AT_ONCE = 512

_LIMIT = 255.0**2 / 10 ** (LIMIT_DB / 10)  # mean squared error


def copied_share(images: np.ndarray, training: Iterable[np.ndarray]) -> np.ndarray:
    """Computes which share of each image's patches one training image explains: f32 [M].

    A patch of 8x8 pixels is explained by the patch of a training image at the same place if the
    latter, times a gain of at least 0 and plus an offset for each channel, both of least squares,
    differs from it by at least 30 dB PSNR. Flat patches count for neither side: those whose mean
    squared deviation from the means of their channels is below four times the error of 30 dB, that
    is, a deviation of 16.1 of 255. The training image is the one that explains most patches. Sides
    of 128 pixels and more are first divided by a whole number, by averaging, to 64 to 127 pixels. A
    remainder on the right or below that fills no patch is left out.

    Images are uint8 [M, H, W, C], training images batches [m, H, W, C] of any sizes. An image that
    has only flat patches gets NaN. Time and memory: docs/metrics.md. Raises InputError if there
    are no images on either side, their sizes differ, or they are smaller than a patch.
    """
    if not len(images) or min(images.shape[1:3]) < PATCH:
        raise InputError(f"images have shape {images.shape}: give some, of {PATCH}x{PATCH} or more")
    queries, limits = _queries(jnp.asarray(images))
    most = jnp.zeros(len(images), jnp.int32)
    seen = 0
    for batch in training:
        if batch.shape[1:] != images.shape[1:]:
            raise InputError(f"images of {images.shape[1:]}, training images of {batch.shape[1:]}")
        for start in range(0, len(batch), AT_ONCE):
            rows = batch[start : start + AT_ONCE]
            # A constant shape is compiled once; an image that is there twice changes nothing.
            filled = np.resize(rows, (min(AT_ONCE, _power_of_two(len(rows))), *rows.shape[1:]))
            most = _most_explained(most, queries, limits, jnp.asarray(filled))
        seen += len(batch)
    if not seen:
        raise InputError("there are no training images to compare with: give at least one")
    counted = np.isfinite(np.asarray(limits)).sum(0)
    with np.errstate(invalid="ignore"):
        return (np.asarray(most) / counted).astype(np.float32)


def mean_share(shares: np.ndarray) -> float | None:
    """The mean of what `copied_share` returns, over the images that have a share; None if none."""
    known = shares[np.isfinite(shares)]
    return float(known.mean()) if len(known) else None


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _patches(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The deviation of each patch of uint8 [B, H, W, C] from the means of its channels, scaled to
    unit length, float32 [P, B, F], and its mean square, float32 [P, B].
    """
    count, height, width, channels = images.shape
    factor = max(1, min(height, width) // SIDE)
    rows, columns = (side // factor // PATCH for side in (height, width))
    cut = images[:, : rows * PATCH * factor, : columns * PATCH * factor].astype(jnp.float32)
    small = cut.reshape(count, rows * PATCH, factor, columns * PATCH, factor, channels).mean((2, 4))
    split = small.reshape(count, rows, PATCH, columns, PATCH, channels)
    patches = split.transpose(1, 3, 0, 2, 4, 5).reshape(-1, count, PATCH**2, channels)
    deviation = patches - patches.mean(2, keepdims=True)
    flat = deviation.reshape(*deviation.shape[:2], -1)
    power = jnp.mean(flat**2, -1)
    length = jnp.sqrt(power * flat.shape[-1])[..., None]
    return jnp.where(length > 0, flat / jnp.maximum(length, 1e-6), 0), power


@jax.jit
def _queries(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Unit patches of images, float32 [P, M, F], and the correlation from which another patch
    explains each, float32 [P, M]; infinity for flat ones.
    """
    patches, power = _patches(images)
    textured = power >= LEAST_EXCESS * _LIMIT
    # The gain of least squares leaves 1 - correlation^2 of the mean square over.
    least = jnp.sqrt(1 - _LIMIT / jnp.where(textured, power, jnp.inf))
    return patches, jnp.where(textured, least, jnp.inf)


@jax.jit
def _most_explained(
    most: jax.Array, wanted: jax.Array, limits: jax.Array, training: jax.Array
) -> jax.Array:
    """The larger of `most`, int32 [M], and the patches that one of the training images explains."""
    given, _ = _patches(training)

    def add(counts: jax.Array, place: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        patches, least, others = place
        return counts + (jnp.inner(patches, others) >= least[:, None]), None

    start = jnp.zeros((wanted.shape[1], len(training)), jnp.int32)
    counts, _ = jax.lax.scan(add, start, (wanted, limits, given))
    return jnp.maximum(most, counts.max(1))
