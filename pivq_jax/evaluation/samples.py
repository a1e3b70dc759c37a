"""New images from the code sets of real ones, with their parents, for metrics and pictures.

Parents are drawn from the codes of real images, as returned by `encode_split`. Each new image takes
one N x N matching per exchange and one pass of the decoder; there is no prior. The same key gives
the same codes for every batch size.
"""

from typing import NamedTuple

import jax
import numpy as np

from pivq_jax import sampling
from pivq_jax.common.pictures import magnification, sample_grid
from pivq_jax.data.sources import Source
from pivq_jax.evaluation.reconstruction import images_of, in_batches
from pivq_jax.inference import TrainedModel

__all__ = ["POOL_IMAGES", "Samples", "average_pixels", "recombine_at_random"]

# Most training images whose codes are used: as parents, for the log lift and to fit probes.
# Encoding them takes seconds on a CPU.
POOL_IMAGES = 10_000


class Samples(NamedTuple):
    """Recombined images."""

    images: np.ndarray  # uint8 [S, H, W, 3]
    codes: np.ndarray  # int32 [S, N]
    parents: np.ndarray  # int32 [S, P], indices into the pool; the first is the image changed

    def between_parents(self, pool: Source, count: int) -> np.ndarray:
        """Draws the first `count` images, each between its first two parents in `pool`."""
        images, parents = self.images[:count], self.parents[:count]
        first, second = images_of(pool, parents[:, 0]), images_of(pool, parents[:, 1])
        return sample_grid(first, second, images, scale=magnification(images.shape[1]))


def recombine_at_random(
    model: TrainedModel,
    codes: np.ndarray,
    count: int,
    key: jax.Array,
    batch_size: int,
    parents: int = 2,
    fraction: float | None = None,
    lift: jax.Array | None = None,
    nearest_of: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Recombines the codes of parents drawn at random.

    Args:
        model: the trained model.
        codes: int32 [M, N], codes of the pool of parents, M >= P.
        count: S, the number of images, at least 1.
        key: PRNG key of the choice of parents and of the exchanges.
        batch_size: number of images recombined at once, at least 1.
        parents: P, the number of different parents per image, at least 2.
        fraction: fraction of the first parent's codes that is exchanged, in [0, 1]; see
            `sampling.recombine_many`. By default, all parents contribute equally.
        lift: float32 [K, K], see `sampling.recombine`.
        nearest_of: number of images from which the parents nearest to the first one are chosen, see
            `sampling.near_parents`.

    Returns:
        The codes of the new images, int32 [S, N], and the parents of each, int32 [S, P], indices
        into the pool; the first one is the image changed.

    Raises:
        InputError: if the pool is too small, or a number is out of range.
        ValueError: if `fraction` is out of range.
    """
    key_parents, key_mix = jax.random.split(key)
    pool = codes, model.codebook, parents, nearest_of
    groups = np.asarray(sampling.near_parents(model.space, key_parents, count, *pool))
    fraction = (parents - 1) / parents if fraction is None else fraction

    def mix(rows: np.ndarray) -> np.ndarray:
        how = codes[groups[rows]], key_mix, rows, fraction, lift
        return np.asarray(sampling.recombine_groups(model.space, model.codebook, *how))

    mixed = np.concatenate([mix(rows) for rows in in_batches(np.arange(count), batch_size)])[:count]
    return mixed, groups


def average_pixels(source: Source, parents: np.ndarray) -> np.ndarray:
    """Averages the pixels of parents, integers [S, P] into `source`: a baseline without a model.

    Returns uint8 [S, H, W, 3], rounded half to even.
    """
    averaged = (np.rint(images_of(source, group).mean(axis=0)) for group in parents)
    return np.stack([image.astype(np.uint8) for image in averaged])
