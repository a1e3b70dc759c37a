"""Effective capacity: how many bits the codes of an image can carry, and how many they do carry.

All measures are computed in float64 over a whole split. Few images show few codes and so
underestimate entropies; always read the measures together with the number of images.
"""

import numpy as np
import numpy.typing as npt

from pivq_jax.codes.space import CodeSpace

# An entry counts as used if at least one in this number of images contains it.
USED_ONCE_IN = 1000
# An entry that is in at least this fraction of the images carries almost no information.
CONSTANT_SHARE = 0.9


def capacity(space: CodeSpace, codes: npt.ArrayLike) -> dict[str, float]:
    """Measures the effective capacity of a model from the codes of a whole split.

    Returns the measures of docs/metrics.md, and `images`, M. Of these, `marginal_bits` adds up
    empirical entropies, up to the capacity: for sets and multisets that of the count of each entry
    in an image; for `positional` that of the code at each position, and where each latent has
    entries of its own that of its code.

    `codes` are int [M, N], those of M >= 1 images, whose order within an image matters for
    `positional` only. Raises ValueError if there are no images, or codes are not of this space.
    """
    codes, codebook_size = space.check(codes), space.codebook_size
    if not codes.size:
        raise ValueError(f"codes have shape {codes.shape}: give those of at least one image")
    images, num_codes = codes.shape
    ceiling = space.ceiling_bits

    uses = np.bincount(codes.reshape(-1), minlength=codebook_size)
    if space.distinct:  # an image with a code has it once
        frequency = images_with = uses
    else:
        # Number and frequency of each (image, code) that occurs: M N values instead of M K.
        offsets = np.arange(images, dtype=np.int64)[:, None] * codebook_size
        occurring, counts = np.unique(codes.astype(np.int64) + offsets, return_counts=True)
        entries = occurring % codebook_size
        images_with = np.bincount(entries, minlength=codebook_size)
        _, frequency = np.unique(entries * (num_codes + 1) + counts, return_counts=True)

    if space.ordered or space.own_entries:
        places = codes if space.ordered else np.sort(codes, axis=1)
        marginal = sum(_surprise_bits(np.bincount(place), images) for place in places.T)
    else:
        # Zero counts, which are most of them, are not in `frequency`; they are the other images.
        marginal = _surprise_bits(frequency, images) + _surprise_bits(images - images_with, images)

    return {
        "ceiling_bits": ceiling,
        "marginal_bits": min(ceiling, marginal),
        "distinct_codes_per_image": float(images_with.sum() / images),
        "codes_used": int(np.sum((images_with > 0) & (images_with * USED_ONCE_IN >= images))),
        "constant_codes": int(np.sum(images_with >= CONSTANT_SHARE * images)),
        "perplexity": 2.0 ** _surprise_bits(uses, codes.size),
        "images": images,
    }


def _surprise_bits(frequency: npt.NDArray[np.integer], total: int) -> float:
    """Returns the sum of -p log2 p over p = frequency / total, where 0 log2 0 = 0."""
    p = frequency[frequency > 0] / total
    return max(0.0, -float(np.sum(p * np.log2(p))))
