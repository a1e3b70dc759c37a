"""Fingerprints of the weights without which a file of codes cannot be read."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from pivq_jax.interop import to_torch

PRIOR_BYTES = 4


def fingerprint(params: Any) -> bytes:
    """Returns a fingerprint of the weights of a model; the step and the config do not matter.

    It is that of the arrays of a published `model.safetensors`: the first bytes of SHA-256 of, for
    each array in order of its name, the name and its shape as in `(2, 3)`, each followed by a line
    break, and its values as float32, the least significant byte first.

    Args:
        params: parameters, a tree of float32 arrays.

    Returns:
        8 bytes.
    """
    return _digest(to_torch(params))[:8]


def prior_fingerprint(params: Any) -> bytes:
    """Returns a fingerprint of the weights of a prior: that of its published `prior.safetensors`.

    It has 4 bytes, half the length, as it only tells priors over the codes of one model apart.
    """
    return _digest(traverse_util.flatten_dict(jax.device_get(params), sep="/"))[:PRIOR_BYTES]


def _digest(arrays: Mapping[str, np.ndarray]) -> bytes:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}\n{array.shape}\n".encode())
        digest.update(array.astype("<f4", copy=False).tobytes())
    return digest.digest()
