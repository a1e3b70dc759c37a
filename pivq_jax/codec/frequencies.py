"""The frequencies of entries as a file with short codes stores them: a level, a byte, for each."""

import math

import numpy as np
import numpy.typing as npt


def entry_levels(codes: npt.ArrayLike, codebook_size: int) -> bytes:
    """Returns the levels, K bytes, of the entries in sets of codes [M, N].

    An entry that n of M images contain has the odds (n + 1/2) / (M - n + 1/2). Its level is two per
    factor of two, counted from 1 for the rarest entry, and 0 if no image contains it. The rounding
    costs 0.1 bits an image at N = 16.
    """
    codes = np.asarray(codes)
    found = np.bincount(codes.reshape(-1), minlength=codebook_size)
    octaves = np.log2((found + 0.5) / (len(codes) - found + 0.5))
    levels = 1 + np.rint(2 * (octaves - octaves[found > 0].min()))
    return np.where(found > 0, levels, 0).astype(np.uint8).tobytes()


def weights_of(levels: bytes) -> list[int]:
    """Returns the weights of entries in the distribution of sets, see `inclusion_table`."""
    return [math.isqrt(1 << (level + 15)) if level else 0 for level in levels]
