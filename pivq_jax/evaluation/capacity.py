"""Effective capacity: how many bits the codes of an image can carry, and how many they do carry.

All measures are computed in float64 over a whole split. Few images show few codes and so
underestimate entropies; always read the measures together with the number of images.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pivq_jax.model.quantizer import KINDS

__all__ = ["capacity", "ceiling_bits"]

# An entry counts as used if at least one in this number of images contains it.
USED_ONCE_IN = 1000
# An entry that is in at least this fraction of the images carries almost no information.
CONSTANT_SHARE = 0.9


def ceiling_bits(kind: str, num_codes: int, codebook_size: int) -> float:
    """Returns log2 of the number of different messages of `num_codes` codes.

    With N codes and K entries, this is log2 C(K, N) for `matching` (sets), log2 C(K + N - 1, N) for
    `nearest` (multisets), and N log2 K for `positional` (sequences).

    Args:
        kind: `matching`, `nearest` or `positional`.
        num_codes: N, at least 1.
        codebook_size: K, at least 1; for `matching` at least N.

    Returns:
        Bits per image.

    Raises:
        ValueError: if the kind is unknown or a size is out of range.
    """
    if kind not in KINDS:
        raise ValueError(f"kind = {kind!r} is unknown: use one of {', '.join(KINDS)}")
    if num_codes < 1 or codebook_size < 1:
        raise ValueError(
            f"num_codes = {num_codes} and codebook_size = {codebook_size}: both must be at least 1"
        )
    if kind == "positional":
        return num_codes * math.log2(codebook_size)
    if kind == "nearest":
        return _log2_binomial(codebook_size + num_codes - 1, num_codes)
    if num_codes > codebook_size:
        raise ValueError(
            f"{num_codes} distinct codes cannot come from {codebook_size} entries: "
            "matching needs codebook_size >= num_codes"
        )
    return _log2_binomial(codebook_size, num_codes)


def capacity(codes: npt.ArrayLike, codebook_size: int, kind: str) -> dict[str, float]:
    """Measures the effective capacity of a model from the codes of a whole split.

    The result contains:

    - `ceiling_bits`: see the function of that name;
    - `marginal_bits`: an upper bound on the entropy of the decoder's input, from empirical
      marginals. For sets and multisets, the minimum of the ceiling and the sum over k of H(count of
      k in an image); for `positional`, the sum over n of H(code at position n);
    - `distinct_codes_per_image`: mean over the images;
    - `codes_used`: number of entries that at least 0.1 % of the images contain;
    - `constant_codes`: number of entries that at least 90 % of the images contain;
    - `perplexity`: 2 to the power of the entropy of the histogram of all codes, from 1 to K;
    - `images`: M.

    Args:
        codes: int [M, N], the codes of M images, values in [0, codebook_size). The order within an
            image matters for `positional` only.
        codebook_size: K, the number of codebook entries.
        kind: `matching` (the codes of an image are distinct), `nearest` or `positional`.

    Returns:
        The measures by name.

    Raises:
        ValueError: if the kind is unknown, the shape is not [M, N], there are no images, codes are
            out of range, or codes repeat within an image for `matching`.
        TypeError: if codes are not integers.
    """
    codes = np.asarray(codes)
    if codes.ndim != 2 or codes.size == 0:
        raise ValueError(f"codes have shape {codes.shape}: give [M, N], at least one image")
    if not np.issubdtype(codes.dtype, np.integer):
        raise TypeError(f"codes have dtype {codes.dtype}: give integers")
    images, num_codes = codes.shape
    ceiling = ceiling_bits(kind, num_codes, codebook_size)
    lowest, highest = int(codes.min()), int(codes.max())
    if lowest < 0 or highest >= codebook_size:
        raise ValueError(
            f"codes range from {lowest} to {highest}, but the codebook has {codebook_size} "
            f"entries: give codes in [0, {codebook_size}) or the codebook's real size"
        )

    # Number and frequency of each (image, code) that occurs: M N values instead of M K.
    offsets = np.arange(images, dtype=np.int64)[:, None] * codebook_size
    occurring, counts = np.unique(codes.astype(np.int64) + offsets, return_counts=True)
    if kind == "matching" and occurring.size < codes.size:
        image = int(occurring[np.argmax(counts > 1)] // codebook_size)
        raise ValueError(
            f"image {image} repeats a code, but matching gives {num_codes} distinct ones: "
            "use kind='nearest' for multisets"
        )
    entries = occurring % codebook_size
    images_with = np.bincount(entries, minlength=codebook_size)

    if kind == "positional":
        marginal = sum(_entropy_bits(np.bincount(place)) for place in codes.T)
    else:
        # Zero counts, which are most of them, are not listed above; they are the remaining images.
        _, frequency = np.unique(entries * (num_codes + 1) + counts, return_counts=True)
        marginal = _surprise_bits(frequency, images) + _surprise_bits(images - images_with, images)

    return {
        "ceiling_bits": ceiling,
        "marginal_bits": min(ceiling, marginal),
        "distinct_codes_per_image": occurring.size / images,
        "codes_used": int(np.sum((images_with > 0) & (images_with * USED_ONCE_IN >= images))),
        "constant_codes": int(np.sum(images_with >= CONSTANT_SHARE * images)),
        "perplexity": 2.0 ** _entropy_bits(np.bincount(codes.reshape(-1))),
        "images": images,
    }


def _log2_binomial(n: int, k: int) -> float:
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return max(0.0, log / math.log(2.0))


def _entropy_bits(histogram: npt.NDArray[np.integer]) -> float:
    return _surprise_bits(histogram, int(histogram.sum()))


def _surprise_bits(frequency: npt.NDArray[np.integer], total: int) -> float:
    """Returns the sum of -p log2 p over p = frequency / total, where 0 log2 0 = 0."""
    p = frequency[frequency > 0] / total
    return max(0.0, -float(np.sum(p * np.log2(p))))
