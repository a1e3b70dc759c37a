"""Comparison of generated with real images: FID and PRDC of their features."""

import numpy as np

from pivq_jax.evaluation.frechet import frechet_distance
from pivq_jax.evaluation.prdc import prdc

__all__ = ["compare_features"]


def compare_features(real: np.ndarray, fake: np.ndarray, k: int = 5) -> dict[str, float]:
    """Computes `fid`, `precision`, `recall`, `density` and `coverage` of f32 [M, F] and [L, F].

    For the number `k` of neighbours and errors see `prdc`.
    """
    quality = prdc(real, fake, k)._asdict()
    return {"fid": frechet_distance(real, fake), **quality}
