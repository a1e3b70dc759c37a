"""Code sets of training images in safetensors files, each as its rank: 13 bytes for 16 of 512."""

from pathlib import Path

import numpy as np
import safetensors.numpy

from pivq_jax.common.enumeration import rank, unrank
from pivq_jax.common.errors import InputError, brief
from pivq_jax.common.files import write_atomically
from pivq_jax.common.weights import read_safetensors

RANKS = "ranks"  # name of the one tensor, uint8 [M, bytes of a rank]


def write_parents(path: Path, codes: np.ndarray, codebook_size: int, kind: str) -> None:
    """Writes the codes of images atomically.

    Args:
        path: the file, replaced if it exists.
        codes: integers [M, N], values in [0, codebook_size).
        codebook_size: K, the number of codebook entries.
        kind: kind of quantizer, `matching`, `nearest` or `positional`.
    """
    ranks = rank(codes, codebook_size, kind)
    write_atomically(path, safetensors.numpy.save({RANKS: ranks}))


def read_parents(path: Path, num_codes: int, codebook_size: int, kind: str) -> np.ndarray:
    """Reads the codes of images.

    Args:
        path: a file written by `write_parents`.
        num_codes: N, the number of codes of an image.
        codebook_size: see `write_parents`.
        kind: see `write_parents`.

    Returns:
        int32 [M, N].

    Raises:
        InputError: if the file is damaged or of another model.
    """
    remedy = "give a directory that save_pretrained wrote"
    arrays, _ = read_safetensors(path, remedy)
    if arrays.keys() != {RANKS} or not len(arrays[RANKS]):
        raise InputError(f"{path} does not hold the ranks of code sets: {remedy}")
    try:
        return unrank(arrays[RANKS], num_codes, codebook_size, kind)
    except ValueError as error:
        raise InputError(f"{path} is not of its model ({brief(error)}): {remedy}") from error
