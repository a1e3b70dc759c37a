"""New code sets of a trained model, from parents drawn at random."""

from typing import TYPE_CHECKING

import jax
import numpy as np

from pivq_jax import sampling

if TYPE_CHECKING:
    from pivq_jax.inference import TrainedModel


def recombine_at_random(
    model: "TrainedModel",
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
    space, codebook = model.space, model.codebook
    drawn = sampling.near_parents(space, key_parents, count, codes, codebook, parents, nearest_of)
    groups, mixed = np.asarray(drawn), []
    for start in range(0, count, batch_size):
        # The last batch is filled up, so that all have the same shape.
        rows = np.arange(start, start + batch_size) % count
        chosen = codes[groups[rows]]
        made = sampling.recombine_groups(space, codebook, chosen, key_mix, rows, fraction, lift)
        mixed.append(np.asarray(made))
    return np.concatenate(mixed)[:count], groups
