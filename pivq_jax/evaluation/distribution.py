"""Comparison of generated with real images: FID and PRDC of their features."""

import numpy as np

from pivq_jax.evaluation.frechet import feature_moments, frechet_distance
from pivq_jax.evaluation.prdc import prdc

__all__ = ["compare_features"]


def compare_features(real: np.ndarray, fake: np.ndarray, k: int = 5) -> dict[str, float]:
    """Computes `fid`, `precision`, `recall`, `density` and `coverage`.

    Args:
        real: f32 [M, F], features of real images.
        fake: f32 [L, F], features of generated images.
        k: number of neighbours for precision, recall, density and coverage.

    Returns:
        The metrics by name.

    Raises:
        InputError: if a set has k images or fewer, or features are not finite.
    """
    quality = prdc(real, fake, k)._asdict()
    return {"fid": frechet_distance(*feature_moments(real), *feature_moments(fake)), **quality}
