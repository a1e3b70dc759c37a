"""New images from the pixels of two images: baselines without a model."""

import numpy as np

SEAM = 3.0  # pixels: a sigmoid of this scale across the line
CANDIDATES = 64  # of which the second image is the best, if they are matched


def pairs_of(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Draws pairs of different images of `size`: int [count, 2]."""
    first = rng.integers(0, size, count)
    second = rng.integers(0, size - 1, count)
    return np.stack([first, second + (second >= first)], 1)


def lines(rng: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Signed distances of pixels from random lines through the middle, f32 [count, side, side]."""
    angles = rng.uniform(0, 2 * np.pi, count).astype(np.float32)
    at = np.arange(side, dtype=np.float32) - (side - 1) / 2
    across, down = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    return across * at[None, None, :] + down * at[None, :, None]


def weights(distances: np.ndarray) -> np.ndarray:
    """Share of the second image in pixels at distances from a line, of the same shape."""
    return 1 / (1 + np.exp(-distances / SEAM))


def matched(
    rng: np.random.Generator, images: np.ndarray, first: np.ndarray, distances: np.ndarray
) -> np.ndarray:
    """Finds second images, int [S], for the first ones, int [S], and lines, f32 [S, H, W].

    Each is the one of `CANDIDATES` random images that differs least near the line, by the squared
    difference of pixels, weighted as the pixels of both are mixed there.
    """
    found = np.empty(len(first), np.int64)
    for i, (own, distance) in enumerate(zip(first, distances, strict=True)):
        drawn = rng.choice(len(images) - 1, min(CANDIDATES, len(images) - 1), replace=False)
        others = drawn + (drawn >= own)
        share = weights(distance)
        near = share * (1 - share)
        rows, columns = np.nonzero(near > 1e-3)  # elsewhere they may differ
        apart = images[others][:, rows, columns].astype(np.float32) - images[own][rows, columns]
        found[i] = others[np.argmin(np.einsum("mpc,p->m", apart**2, near[rows, columns]))]
    return found


def mix(first: np.ndarray, second: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    """Mixes uint8 [S, H, W, C] with a share of the second, f32 [S, H, W] or one for all pixels."""
    if isinstance(share, np.ndarray):
        share = share[..., None]
    mixed = first + share * (second.astype(np.float32) - first)
    return np.rint(mixed).astype(np.uint8)
