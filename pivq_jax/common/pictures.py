"""Grids of images as uint8 arrays, and PNG files.

Images are uint8 [M, H, W, 3] throughout.
"""

import io
import os
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pivq_jax.common.files import as_path, write_atomically
from pivq_jax.common.output import as_text

__all__ = ["save_png"]

Pixels = npt.NDArray[np.uint8]
_PAD = 2  # of the pictures that consist of groups
MOST_BARS = 2_048  # in a chart, as a wide screen has pixels


def grid(images: npt.ArrayLike, columns: int, pad: int = _PAD, scale: int | None = None) -> Pixels:
    """Arranges images in a grid on white, row by row, of at most so many columns.

    `pad` is the gap between the images and around them in pixels. Images are enlarged `scale` times
    by nearest neighbour, by default so that the pixels of small ones are visible. Raises ValueError
    or TypeError if they are not uint8 [M, H, W, 3], M at least 1.
    """
    images = _check(images, "images")
    columns = min(columns, len(images))
    scale = scale or magnification(images.shape[1])
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    # A gap above and to the left of each image, and white places after the last one.
    margins = ((0, -len(images) % columns), (pad, 0), (pad, 0), (0, 0))
    tiles = np.pad(images, margins, constant_values=255)
    count, height, width, _ = tiles.shape
    rows = count // columns
    tiles = tiles.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    picture = tiles.reshape(rows * height, columns * width, 3)
    return np.pad(picture, ((0, pad), (0, pad), (0, 0)), constant_values=255)


def magnification(image_size: int) -> int:
    """Returns the enlargement with which small images have at least 65 pixels per side."""
    return max(1, 128 // image_size)


def reconstruction_grid(
    originals: npt.ArrayLike, reconstructions: npt.ArrayLike, columns: int = 8
) -> Pixels:
    """Arranges originals and reconstructions in a grid, each reconstruction below its original."""
    pairs = np.stack([originals, reconstructions], axis=1)
    # Each pair is one tall tile, so that the last row may be shorter.
    tiles = [grid(pair, 1)[_PAD:-_PAD, _PAD:-_PAD] for pair in pairs]
    return grid(tiles, columns, scale=1)


def sample_grid(
    parents_a: npt.ArrayLike, parents_b: npt.ArrayLike, samples: npt.ArrayLike, columns: int = 3
) -> Pixels:
    """Arranges triples of parent A, sample and parent B in a grid, with wide gaps between them."""
    triples = np.stack([parents_a, samples, parents_b], axis=1)
    tiles = [grid(triple, 3)[_PAD:-_PAD, _PAD:-_PAD] for triple in triples]
    return grid(tiles, columns, pad=4 * _PAD, scale=1)


def usage_chart(codes: npt.ArrayLike, codebook_size: int, height: int = 160) -> Pixels:
    """Bar chart of the fraction of images that contain each codebook entry, most frequent first.

    Bars are 2 pixels wide for K below 1,000, otherwise 1 pixel; `height` is that of the highest.
    For K above `MOST_BARS`, each stands for the mean of several entries.
    """
    ordered = np.sort(np.asarray(codes, np.int32), axis=1)
    first = np.diff(ordered, axis=1, prepend=np.int32(-1)) > 0  # an image counts once for an entry
    counts = np.bincount(ordered[first], minlength=codebook_size)
    shares = np.sort(counts / len(ordered))[::-1]
    if codebook_size > MOST_BARS:
        shares = np.array([part.mean() for part in np.array_split(shares, MOST_BARS)])
    bars = np.repeat(np.rint(shares / shares[0] * height), 2 if codebook_size < 1_000 else 1)
    filled = np.arange(height, 0, -1)[:, None] <= bars
    picture = np.where(filled[..., None], [70, 110, 180], 255).astype(np.uint8)
    return np.pad(picture, ((2, 2), (2, 2), (0, 0)), constant_values=255)


def curve_chart(
    title: str, steps: Sequence[float], values: Sequence[float], span: tuple[float, float]
) -> Pixels:
    """Line through values by step, 300 x 140 pixels, with the lowest and highest value beside it.

    The first and the last step of `span` are at its sides; the last value follows the title.
    """
    from PIL import Image, ImageDraw, ImageFont

    left, top, width, height = 60, 24, 230, 106
    canvas = Image.new("RGB", (left + width + 10, top + height + 10), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=12)
    low, high = min(values), max(values)
    across, up = width / (span[1] - span[0] or 1), height / (high - low or 1)
    line = [
        (left + (step - span[0]) * across, top + (high - value) * up)
        for step, value in zip(steps, values, strict=True)
    ]
    draw.line(line, (70, 110, 180), 2)
    for point in line:
        draw.circle(point, 2, (70, 110, 180))
    draw.text((left, 4), f"{title}: {as_text(values[-1])}", "black", font)
    draw.text((4, top - 6), as_text(high), "grey", font)
    draw.text((4, top + height - 8), as_text(low), "grey", font)
    return np.asarray(canvas)


def encode_png(image: npt.ArrayLike, texts: Mapping[str, str] | None = None) -> bytes:
    """Returns the content of a PNG file with an image, uint8 [H, W, 3], and texts by name."""
    from PIL import Image  # takes long, and not all who import this module need it
    from PIL.PngImagePlugin import PngInfo

    file, info = io.BytesIO(), PngInfo()
    for name, text in (texts or {}).items():
        info.add_text(name, text)
    Image.fromarray(np.asarray(image)).save(file, format="PNG", pnginfo=info)
    return file.getvalue()


def save_png(path: str | os.PathLike[str], array: npt.ArrayLike) -> None:
    """Writes a picture as a PNG file, atomically; missing directories are created.

    Args:
        path: name of the file, local or remote.
        array: uint8 [H, W, 3].

    Raises:
        ValueError: if the shape is wrong.
        TypeError: if the array is not uint8.
    """
    picture = np.asarray(array)
    if picture.ndim != 3:
        raise ValueError(f"a picture has shape {picture.shape}: give [H, W, 3]")
    picture = _check(picture[None], "a picture")[0]
    write_atomically(as_path(os.fspath(path)), encode_png(picture))


def _check(images: npt.ArrayLike, name: str) -> Pixels:
    array = np.asarray(images)
    if array.dtype != np.uint8:
        raise TypeError(
            f"{name} has dtype {array.dtype}: give uint8; from [-1, 1] that is "
            "np.clip(np.round((x + 1) * 127.5), 0, 255).astype(np.uint8)"
        )
    if array.ndim != 4 or array.shape[-1] != 3 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}: give [M, H, W, 3], not empty")
    return array
