"""New images from the code sets of real ones, with their parents, for metrics and pictures.

Parents are drawn from the codes of real images, as returned by `encode_split`. Each new image takes
one N x N matching per exchange and one pass of the decoder; there is no prior. The same key gives
the same codes for every batch size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax import sampling
from pivq_jax.common.errors import InputError
from pivq_jax.common.pictures import magnification, sample_grid
from pivq_jax.data.images import images_to_uint8
from pivq_jax.data.sources import Example, Source
from pivq_jax.evaluation.reconstruction import decode_batched
from pivq_jax.inference import TrainedModel

__all__ = ["Samples", "average_pixels", "sample_recombined"]


class Samples(NamedTuple):
    """Recombined images."""

    images: np.ndarray  # uint8 [S, H, W, 3]
    codes: np.ndarray  # int32 [S, N]
    parents: np.ndarray  # int32 [S, P], indices into the pool; the first is the image changed

    def between_parents(self, pool: Source, count: int) -> np.ndarray:
        """Draws the first `count` images, each between its first two parents in `pool`."""
        images, parents = self.images[:count], self.parents[:count, :2]
        first, second = (np.stack([pool[int(i)]["image"] for i in side]) for side in parents.T)
        return sample_grid(first, second, images, scale=magnification(images.shape[1]))


class Paths(NamedTuple):
    """Interpolations between pairs of images."""

    images: np.ndarray  # uint8 [steps, S, H, W, 3]
    codes: np.ndarray  # int32 [steps, S, N]
    parents: np.ndarray  # int32 [S, 2], start and end, indices into the pool


def sample_recombined(
    model: TrainedModel,
    codes: np.ndarray,
    count: int,
    key: jax.Array,
    batch_size: int,
    parents: int = 2,
    fraction: float | None = None,
    lift: jax.Array | None = None,
    nearest_of: int = 1,
) -> Samples:
    """Recombines and decodes the codes of parents drawn at random.

    Args:
        model: the trained model.
        codes: int32 [M, N], codes of the pool of parents, M >= P.
        count: S, the number of images, at least 1.
        key: PRNG key of the choice of parents and of the exchanges.
        batch_size: number of images decoded at once, at least 1.
        parents: P, the number of different parents per image, at least 2.
        fraction: fraction of the first parent's codes that is exchanged, in [0, 1]; see
            `sampling.recombine_many`. By default, all parents contribute equally.
        lift: float32 [K, K], see `sampling.recombine`.
        nearest_of: number of images from which the parents nearest to the first one are chosen, see
            `sampling.near_parents`.

    Returns:
        The `Samples`.

    Raises:
        InputError: if the pool is too small, or an argument is out of range.
    """
    _check_at_least(1, count=count, batch_size=batch_size)
    if fraction is not None and not 0 <= fraction <= 1:
        raise InputError(f"fraction = {fraction:g}: use a share in [0, 1]")
    key_parents, key_mix = jax.random.split(key)
    _check_parents(parents, len(codes))
    groups = np.asarray(
        sampling.near_parents(
            model.space, key_parents, count, codes, model.codebook, parents, nearest_of
        )
    )
    fraction = (parents - 1) / parents if fraction is None else fraction

    def sample(start: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.resize(np.arange(start, min(start + batch_size, count)), batch_size)
        sets = codes[groups[rows]]
        mixed = sampling.recombine_groups(
            model.space, model.codebook, sets, key_mix, rows, fraction, lift
        )
        return np.asarray(images_to_uint8(model.decode(mixed))), np.asarray(mixed)

    batches = [sample(start) for start in range(0, count, batch_size)]
    images, mixed = (np.concatenate(part)[:count] for part in zip(*batches, strict=True))
    return Samples(images, mixed, groups)


def sample_paths(
    model: TrainedModel, codes: np.ndarray, count: int, steps: int, key: jax.Array, batch_size: int
) -> Paths:
    """Interpolates between `count` random pairs of images of a pool, in `steps` with both ends."""
    _check_at_least(1, count=count, batch_size=batch_size)
    _check_at_least(2, steps=steps)
    _check_parents(2, len(codes))
    pairs = np.asarray(sampling.random_pairs(key, count, len(codes)))
    ends = jnp.asarray(codes[pairs])
    paths = np.asarray(model.interpolate(ends[:, 0], ends[:, 1], steps))
    images = decode_batched(model, paths.reshape(-1, paths.shape[-1]), batch_size)
    return Paths(images.reshape(steps, count, *images.shape[1:]), paths, pairs)


def average_pixels(source: Source | Sequence[Example], parents: np.ndarray) -> np.ndarray:
    """Averages the pixels of parents, a baseline without a model.

    Args:
        source: images uint8 [H, W, 3].
        parents: integers [S, P], indices into `source`, S >= 1.

    Returns:
        uint8 [S, H, W, 3], rounded half to even.
    """
    averaged = [
        np.rint(np.mean([source[int(i)]["image"] for i in group], axis=0)).astype(np.uint8)
        for group in parents
    ]
    return np.stack(averaged)


def _check_parents(parents: int, size: int) -> None:
    _check_at_least(2, parents=parents)
    if size < parents:
        raise InputError(f"{parents} parents of a pool of {size} images: encode more of them")


def _check_at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise InputError(f"{name} = {value}: use at least {least}")
