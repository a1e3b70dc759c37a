"""The parameters of networks: their type, and a checksum of arrays."""

import zlib
from typing import Any

import jax
import numpy as np

from pivq_jax.common.parallel import to_first_device

# A tree of arrays by name. `optax.Params` is no stricter for mypy, and long in the reference.
Params = Any


def checksum(arrays: Any) -> int:
    """Returns the CRC-32 of the bytes of all arrays of a tree."""
    crc = 0
    for leaf in jax.tree.leaves(to_first_device(arrays)):
        crc = zlib.crc32(np.asarray(leaf).tobytes(), crc)
    return crc
