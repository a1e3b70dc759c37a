"""Precision, recall, density and coverage (PRDC) of generated images in feature space."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from pivq_jax.common.errors import InputError
from pivq_jax.evaluation import neighbours
from pivq_jax.evaluation.features import Features
from pivq_jax.evaluation.frechet import frechet_distance

__all__ = ["PRDC", "prdc"]


class PRDC(NamedTuple):
    """The four metrics, in [0, 1], except for density, which may exceed 1 (at most M / k)."""

    precision: float  # fraction of fake images inside the ball of some real image
    recall: float  # fraction of real images inside the ball of some fake image
    density: float  # mean over fake images of the number of real balls around them, divided by k
    coverage: float  # fraction of real images whose ball contains some fake image


def prdc(real: npt.ArrayLike, fake: npt.ArrayLike, k: int = 5) -> PRDC:
    """Computes precision, recall, density and coverage.

    Sources: precision and recall, Kynkäänniemi et al. 2019, arXiv 1904.06991; density and coverage,
    Naeem et al. 2020, arXiv 2002.09797.

    The ball of an image is the open ball around its features whose radius is the distance to its
    k-th nearest neighbour in its own set, excluding itself. Distances are computed from differences
    in float64 and compared after rounding to float32, as in the `prdc` package, so equal distances
    are equal here. An image with k or more exact copies in its set has an empty ball. Two identical
    sets without such copies have precision, recall and coverage 1. The order of images does not
    matter. Memory use grows with (M + L) F, not with M L.

    Features are f32 [M, F] and [L, F] of one network, M and L above k, which is at least 1 (5 in
    Naeem et al.); values are comparable only for equal M, L and k. Raises InputError if features
    are invalid or have different F, k < 1, or a set has k images or fewer.
    """
    if k < 1:
        raise InputError(f"k = {k}: use at least 1 neighbour")
    real, fake = neighbours.as_feature_pair(real, fake, "real features", "fake features", k + 1)
    points, targets = neighbours.centred(real, fake)
    # k + 1, because the first neighbour of an image is the image itself.
    real_radii, fake_radii = (
        neighbours.nearest_neighbours(x, x, k + 1).distances[:, k] for x in (real, fake)
    )
    balls_around = np.zeros(len(fake), np.int64)  # real balls that hold each fake image
    covered, recalled = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows in neighbours.row_blocks(len(real), len(fake), "precision and recall"):
        radii = real_radii[rows, None], fake_radii[None]
        balls: list[np.ndarray] = []
        near = jax.device_get(_nearer(points[rows], targets, *radii))
        for radius, (surely, unsure) in zip(radii, near, strict=True):
            inside, pairs = surely.copy(), np.nonzero(unsure)
            squared = neighbours.squared_distances(real[rows], fake, *pairs)
            limits = np.broadcast_to(radius, inside.shape)[pairs]
            inside[pairs] = neighbours.rounded_roots(squared) < limits
            balls.append(inside)
        balls_around += balls[0].sum(0)
        covered[rows], recalled[rows] = balls[0].any(1), balls[1].any(1)
    return PRDC(
        precision=float(np.mean(balls_around > 0)),
        recall=float(np.mean(recalled)),
        density=float(1.0 / k * np.mean(balls_around)),
        coverage=float(np.mean(covered)),
    )


def compare_features(real: np.ndarray, fake: np.ndarray, k: int = 5) -> dict[str, float]:
    """Compares features f32 [M, F] and [L, F]: `fid` and the metrics of `prdc`, by their names."""
    quality = prdc(real, fake, k)._asdict()
    return {"fid": frechet_distance(real, fake), **quality}


def compare_images(real: Features, fake: Features, k: int = 5) -> dict[str, Any]:
    """Compares features of M and L images as `compare_features` does; `quadrants` has the metrics
    of `prdc` for those of the quarters of the images.
    """
    quadrants = prdc(real.quadrants, fake.quadrants, k)._asdict()
    return {**compare_features(real.whole, fake.whole, k), "quadrants": quadrants}


@jax.jit
def _nearer(
    real: jax.Array, fake: jax.Array, *radii: jax.Array
) -> list[tuple[jax.Array, jax.Array]]:
    """For each kind of radii, [M, 1] or [1, L]: which pairs are certainly nearer to each other, and
    which float32 cannot decide, bool [M, L].
    """
    low, high = neighbours.bounds(real, fake)
    margin = 8 * neighbours.ROUNDOFF  # exceeds the rounding of radius and distance to float32
    masks = []
    for radius in radii:
        surely = high < radius**2 * (1 - margin) - neighbours.UNDERFLOW
        possibly = jnp.maximum(low, 0) < radius**2 * (1 + margin) + neighbours.UNDERFLOW
        masks.append((surely, possibly & ~surely & (radius > 0)))
    return masks
