"""How near a set of images is to a set of real ones: FID and PRDC of their features."""

import numpy as np

from pivq_jax.evaluation.frechet import feature_moments, frechet_distance
from pivq_jax.evaluation.prdc import prdc


def compare_features(real: np.ndarray, fake: np.ndarray, k: int = 5) -> dict[str, float]:
    """`fid`, `precision`, `recall`, `density` and `coverage` of f32 [M, F] and f32 [L, F].

    Raises:
        InputError: k images or fewer, or features that are not finite.
    """
    quality = prdc(real, fake, k)._asdict()
    return {"fid": frechet_distance(*feature_moments(real), *feature_moments(fake)), **quality}
