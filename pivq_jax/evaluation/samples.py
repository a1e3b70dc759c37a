"""New images from the code sets of real ones, with their parents, for metrics and pictures.

Parents are drawn from the codes of real images, as returned by `encode_split`. Each new image takes
one N x N matching per exchange and one pass of the decoder; there is no prior. The same key gives
the same codes for every batch size.
"""

from typing import NamedTuple

import numpy as np

from pivq_jax.common.pictures import magnification, sample_grid
from pivq_jax.data.sources import Source
from pivq_jax.evaluation.reconstruction import images_of
from pivq_jax.inference.recombination import recombine_at_random

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


def average_pixels(source: Source, parents: np.ndarray) -> np.ndarray:
    """Averages the pixels of parents, integers [S, P] into `source`: a baseline without a model.

    Returns uint8 [S, H, W, 3], rounded half to even.
    """
    averaged = (np.rint(images_of(source, group).mean(axis=0)) for group in parents)
    return np.stack([image.astype(np.uint8) for image in averaged])
