"""New images from the code sets of real ones, with their parents, for metrics and pictures."""

from typing import NamedTuple

import numpy as np

from pivq_jax.common.pictures import magnification, sample_grid
from pivq_jax.data.sources import Source
from pivq_jax.evaluation.reconstruction import images_of


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
