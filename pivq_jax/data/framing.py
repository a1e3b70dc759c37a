"""Moves, turns and scales a photograph so that the eyes come to given places."""

from collections.abc import Mapping

import numpy as np

# Where the eyes come to, as fractions of the side of the square: (x, y) of the one on the left of
# the image, then of the one on the right.
PRESETS: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = {
    # The face alone, from the forehead to the chin.
    "face": ((0.32, 0.42), (0.68, 0.42)),
    # The means of list_landmarks_align_celeba.txt, (69.5, 111) and (108, 111) of 178 x 218 pixels,
    # in the central square of 178 pixels, which begins 20 pixels below the top.
    "celeba": ((69.5 / 178, 91 / 178), (108 / 178, 91 / 178)),
    # The means of the aligned images of FFHQ.
    "ffhq": ((0.385, 0.47), (0.615, 0.47)),
}

# The photograph is sampled at this number of places along a side of each pixel.
_OVERSAMPLING = 2


def eye_distance(size: int, preset: str) -> float:
    """Returns the distance of the eyes in an aligned image, in pixels."""
    left, right = _complex(np.array(PRESETS[preset]) * size)
    return float(abs(right - left))


def similarity(eyes: np.ndarray, size: int, preset: str) -> np.ndarray:
    """Returns the similarity transform from an aligned image to its photograph, float64 [2, 3].

    The point (x, y) of the aligned image shows `matrix @ (x, y, 1)`.
    """
    # As complex numbers, points z of the aligned image come from a z + b.
    to, come_from = _complex(np.array(PRESETS[preset]) * size), _complex(eyes)
    a = (come_from[1] - come_from[0]) / (to[1] - to[0])
    b = come_from[0] - a * to[0]
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def _complex(points: np.ndarray) -> np.ndarray:
    return points[:, 0] + 1j * points[:, 1]


def align(image: np.ndarray, eyes: np.ndarray, size: int, preset: str) -> np.ndarray:
    """Returns the square of a photograph in which the eyes are at the places of a preset.

    The eyes are those of `landmarks.find_eyes`; the photograph is reflected at its edges.
    """
    from PIL import Image

    # Samples are bicubic, which shows patterns where less than one is taken for each pixel: the
    # photograph is shrunk before, so that about one is. The samples are shrunk to pixels after.
    fine = size * _OVERSAMPLING
    scale = np.linalg.norm(np.subtract(eyes[1], eyes[0])) / eye_distance(fine, preset)
    if scale > 1:
        height, width = image.shape[:2]
        smaller = max(1, round(width / scale)), max(1, round(height / scale))
        image = np.asarray(Image.fromarray(image).resize(smaller, Image.Resampling.LANCZOS))
        eyes = eyes * (np.array(smaller) / (width, height))
    matrix = similarity(eyes, fine, preset)

    # The part of the photograph that is shown, with room for the filter, reflected at the edges.
    corners = matrix @ [[0, fine, 0, fine], [0, 0, fine, fine], [1, 1, 1, 1]]
    left, top = np.floor(corners.min(1)).astype(int) - 3
    right, bottom = np.ceil(corners.max(1)).astype(int) + 3
    rows = _reflected(np.arange(top, bottom), image.shape[0])
    columns = _reflected(np.arange(left, right), image.shape[1])
    part = Image.fromarray(image[rows[:, None], columns])
    matrix[:, 2] -= left, top
    affine, bicubic = Image.Transform.AFFINE, Image.Resampling.BICUBIC
    samples = part.transform((fine, fine), affine, tuple(matrix.ravel()), bicubic)
    return np.array(samples.resize((size, size), Image.Resampling.LANCZOS))


def _reflected(indices: np.ndarray, length: int) -> np.ndarray:
    """Returns the pixels seen at indices outside of [0, length): mirrored at the edges."""
    indices = indices % (2 * length)
    return np.where(indices < length, indices, 2 * length - 1 - indices)
