"""Principal components of images, and their product quantization: baselines without a network."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

PASSES = 4  # through the images, for the subspace of the largest variances
SPARE = 64  # directions beyond those wanted, which makes the passes converge
AT_ONCE = 500  # images in float32
ENTRIES = 256  # of a codebook: 8 bits
STAGES = 2  # codebooks of a slot, the second for what the first leaves over
SLOT = 8  # components
K_MEANS_IMAGES = 10_000  # at most, drawn at random
K_MEANS_STEPS = 25


class Components(NamedTuple):
    """Principal components: `(images - mean) @ basis` are uncorrelated, the largest first."""

    mean: np.ndarray  # f32 [F], F = H W C
    basis: np.ndarray  # f32 [F, P], orthonormal
    deviations: np.ndarray  # f32 [P], standard deviations

    def first(self, count: int) -> "Components":
        """The largest ones alone."""
        return Components(self.mean, self.basis[:, :count], self.deviations[:count])

    def transform(self, images: np.ndarray) -> np.ndarray:
        """uint8 [M, H, W, C] -> f32 [M, P]."""
        return np.concatenate([(x - self.mean) @ self.basis for x in _flat(images)])

    def images(self, values: np.ndarray, like: np.ndarray) -> np.ndarray:
        """f32 [M, P] -> uint8 [M, H, W, C], of the shape of the images `like`."""
        return _rounded(values @ self.basis.T + self.mean).reshape(len(values), *like.shape[1:])


def fit(images: np.ndarray, count: int, mirrored: bool, seed: int = 0) -> Components:
    """Finds the `count` largest components of uint8 [M, H, W, C], and of their mirror images.

    By subspace iteration (Halko et al. 2011, arXiv 0909.4061), which never has all images in
    float32.
    """
    shown = images.mean(0, np.float64)
    mean = ((shown + shown[:, ::-1]) / 2 if mirrored else shown).astype(np.float32).reshape(-1)
    spare = min(count + SPARE, len(mean))
    drawn = np.random.default_rng(seed).normal(size=(len(mean), spare)).astype(np.float32)
    for _ in range(PASSES):
        basis = np.linalg.qr(drawn)[0]
        drawn = np.zeros_like(drawn)
        for part in _flat(images, mirrored):
            centred = part - mean
            drawn += centred.T @ (centred @ basis)
    # The basis spans the largest components; their directions in it are those of its covariance.
    values, rotation = np.linalg.eigh(basis.T @ drawn)
    order = np.argsort(-values)[:count]
    total = len(images) * (2 if mirrored else 1)
    deviations = np.sqrt(np.maximum(values[order], 0) / total)
    return Components(mean, basis @ rotation[:, order], deviations.astype(np.float32))


class Quantizer(NamedTuple):
    """Product quantization: slots of components, each with `STAGES` residual codebooks."""

    slots: np.ndarray  # int [S, SLOT], the components of each
    codebooks: np.ndarray  # f32 [STAGES, S, ENTRIES, SLOT]

    @property
    def bits(self) -> int:
        """Bits of an image."""
        return len(self.slots) * STAGES * (ENTRIES - 1).bit_length()

    def quantize(self, values: np.ndarray) -> np.ndarray:
        """The values f32 [M, P] that stand for those of images."""
        result = np.zeros_like(values)
        for slot, own in zip(self.slots, self.codebooks.swapaxes(0, 1), strict=True):
            for entries in own:
                result[:, slot] += entries[_nearest(values[:, slot] - result[:, slot], entries)]
        return result


def fit_quantizer(values: np.ndarray, deviations: np.ndarray, seed: int = 0) -> Quantizer:
    """Fits codebooks to components f32 [M, P], P a multiple of `SLOT`, by k-means."""
    slots = deal(deviations)
    drawn = np.random.default_rng(seed).permutation(len(values))[:K_MEANS_IMAGES]
    codebooks = np.empty((STAGES, len(slots), ENTRIES, SLOT), np.float32)
    for number, slot in enumerate(slots):
        left = values[drawn][:, slot]
        for codebook in codebooks[:, number]:
            codebook[:] = _k_means(left)
            left = left - codebook[_nearest(left, codebook)]
    return Quantizer(slots, codebooks)


def deal(deviations: np.ndarray) -> np.ndarray:
    """Deals components to slots of `SLOT`, so that the products of variances are about equal.

    This is the parametric solution of optimized product quantization (Ge et al. 2013): each
    component, the largest first, goes to the slot with the least product that is not full.
    Returns int [S, SLOT].
    """
    count = len(deviations) // SLOT
    logs = np.log(np.maximum(deviations.astype(np.float64), 1e-12))
    logs -= logs.min()  # at least 0, so that a slot with more components has a larger product
    sums, slots = np.zeros(count), [[] for _ in range(count)]  # type: ignore[var-annotated]
    for component in np.argsort(-logs, kind="stable"):
        open_slots = [i for i in range(count) if len(slots[i]) < SLOT]
        least = min(open_slots, key=lambda i: sums[i])
        slots[least].append(component)
        sums[least] += logs[component]
    return np.array(slots)


def _k_means(points: np.ndarray) -> np.ndarray:
    """Finds `ENTRIES` centroids of points [M, D] in random order (Lloyd 1982): [ENTRIES, D]."""
    # With fewer points than entries, some entries are alike.
    centroids = points[np.arange(ENTRIES) % len(points)]
    for _ in range(K_MEANS_STEPS):
        owners = _nearest(points, centroids)
        sizes = np.bincount(owners, minlength=ENTRIES)
        sums = [np.bincount(owners, column, ENTRIES) for column in points.T]
        means = np.stack(sums, 1) / np.maximum(sizes, 1)[:, None]
        centroids = np.where(sizes[:, None] > 0, means, centroids).astype(np.float32)
    return centroids


def _nearest(points: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """The nearest of entries [K, D] to each of points [M, D]: int [M]."""
    return np.argmin(np.square(entries).sum(1) - 2 * points @ entries.T, 1)


def _flat(images: np.ndarray, mirrored: bool = False) -> Iterator[np.ndarray]:
    """Batches f32 [m, F] of uint8 images, and of their mirror images."""
    for start in range(0, len(images), AT_ONCE):
        part = images[start : start + AT_ONCE]
        yield part.reshape(len(part), -1).astype(np.float32)
        if mirrored:
            yield part[:, :, ::-1].reshape(len(part), -1).astype(np.float32)


def _rounded(pixels: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)
