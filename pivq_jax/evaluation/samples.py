"""New images from the code sets of real ones, with their parents, for metrics and pictures."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pivq_jax.common.pictures import magnification, sample_grid
from pivq_jax.data.pipeline import eval_batches
from pivq_jax.data.sources import Source, Subset
from pivq_jax.inference import images_of


class Samples(NamedTuple):
    """Recombined images."""

    images: np.ndarray  # uint8 [s, H, W, 3], of the first s sets, or of all
    codes: np.ndarray  # int32 [S, N]
    parents: np.ndarray  # int32 [S, P], indices into the pool; the first is the image changed

    def between_parents(self, pool: Source, count: int) -> np.ndarray:
        """Draws the first `count` images, each between its first two parents in `pool`."""
        images, parents = self.images[:count], self.parents[:count]
        first, second = images_of(pool, parents[:, 0]), images_of(pool, parents[:, 1])
        return sample_grid(first, second, images, scale=magnification(images.shape[1]))


def average_pixels(source: Source, parents: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Averages the pixels of parents, integers [S, P] into `source`: a baseline without a model.

    Yields uint8 [s, H, W, 3], rounded half to even, `batch_size` at a time.
    """
    count = parents.shape[1]
    for batch in eval_batches(Subset(source, parents.ravel()), count * batch_size):
        images = batch["image"][batch["mask"]]
        mean = images.reshape(-1, count, *images.shape[1:]).mean(1)
        yield np.rint(mean).astype(np.uint8)
