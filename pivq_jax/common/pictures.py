"""Grids of images as uint8 arrays, and PNG files.

Images are uint8 [M, H, W, 3] throughout. `scale` enlarges by nearest neighbour, so that the pixels
of small images are visible; `pad` is the gap in pixels of the result.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pivq_jax.common.files import as_path, write_atomically

__all__ = ["grid", "save_png"]

Pixels = npt.NDArray[np.uint8]


def grid(
    images: npt.ArrayLike, columns: int, scale: int = 1, pad: int = 2, background: int = 255
) -> Pixels:
    """Arranges images in a grid, row by row.

    Args:
        images: uint8 [M, H, W, 3], M at least 1.
        columns: number of images per row, at least 1; the last row may be shorter.
        scale: enlargement, at least 1.
        pad: gap between the images and around them in pixels, at least 0.
        background: grey value of gaps and empty positions, in [0, 255].

    Returns:
        uint8 [rows * (H * scale + pad) + pad, columns * (W * scale + pad) + pad, 3].

    Raises:
        ValueError: if a shape is wrong or an option is out of range.
        TypeError: if images are not uint8.
    """
    images = _check(images, "images")
    for name, value, least in (("columns", columns, 1), ("scale", scale, 1), ("pad", pad, 0)):
        if value < least:
            raise ValueError(f"{name} = {value}: use at least {least}")
    if not 0 <= background <= 255:
        raise ValueError(f"background = {background}: use a grey value in [0, 255]")
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    shape = (rows * (height + pad) + pad, columns * (width + pad) + pad, 3)
    picture = np.full(shape, background, np.uint8)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        top, left = pad + row * (height + pad), pad + column * (width + pad)
        picture[top : top + height, left : left + width] = image
    return picture


def reconstruction_grid(
    originals: npt.ArrayLike,
    reconstructions: npt.ArrayLike,
    columns: int = 8,
    scale: int = 1,
    pad: int = 2,
    background: int = 255,
) -> Pixels:
    """Arranges originals and reconstructions in a grid, each reconstruction below its original."""
    pairs = _check_alike(originals=originals, reconstructions=reconstructions)
    columns = min(columns, pairs.shape[1])
    # Each pair is one tall tile, so that the last row may be shorter.
    tiles = _join(pairs, axis=1, scale=scale, pad=pad, background=background)
    return grid(tiles, columns, pad=pad, background=background)


def interpolation_grid(
    images: npt.ArrayLike, scale: int = 1, pad: int = 2, background: int = 255
) -> Pixels:
    """Arranges interpolations, uint8 [steps, B, H, W, 3], in a row per pair of images."""
    images = np.asarray(images)
    if images.ndim != 5:
        raise ValueError(f"images have shape {images.shape}: give [steps, B, H, W, 3]")
    steps = images.shape[0]
    flat = images.swapaxes(0, 1).reshape(-1, *images.shape[2:])
    return grid(flat, max(1, steps), scale, pad, background)


def magnification(image_size: int) -> int:
    """Returns the enlargement with which small images have at least 65 pixels per side."""
    return max(1, 128 // image_size)


def sample_grid(
    parents_a: npt.ArrayLike,
    parents_b: npt.ArrayLike,
    samples: npt.ArrayLike,
    columns: int = 3,
    scale: int = 1,
    pad: int = 2,
    background: int = 255,
) -> Pixels:
    """Arranges triples of parent A, sample and parent B in a grid.

    The gap between triples is four times as wide as that within one.
    """
    triples = _check_alike(parents_a=parents_a, samples=samples, parents_b=parents_b)
    columns = min(columns, triples.shape[1])
    tiles = _join(triples, axis=2, scale=scale, pad=pad, background=background)
    return grid(tiles, columns, pad=4 * pad, background=background)


def labelled(picture: npt.ArrayLike, columns: Sequence[str], rows: Sequence[str] = ()) -> Pixels:
    """Writes names above the columns of a picture, uint8 [H, W, 3], and to the left of its rows.

    Columns are equally wide and rows equally high; an empty name leaves a place unnamed.
    """
    pixels = _check(np.asarray(picture)[None], "a picture")[0]
    font = ImageFont.load_default(size=14)
    height, width, _ = pixels.shape
    left = max((int(font.getlength(name)) + 12 for name in rows), default=0)
    top = 24 if any(columns) else 0
    canvas = Image.new("RGB", (left + width, top + height), "white")
    canvas.paste(Image.fromarray(pixels), (left, top))
    draw = ImageDraw.Draw(canvas)
    for index, name in enumerate(columns):
        place = (left + (index + 0.5) * width / len(columns), top / 2)
        draw.text(place, name, "black", font, anchor="mm")
    for index, name in enumerate(rows):
        draw.text((6, top + (index + 0.5) * height / len(rows)), name, "black", font, anchor="lm")
    return np.asarray(canvas)


def usage_chart(codes: npt.ArrayLike, codebook_size: int, height: int = 160) -> Pixels:
    """Bar chart of the fraction of images that contain each codebook entry, most frequent first.

    Bars are 2 pixels wide for K below 1,000, otherwise 1 pixel; `height` is that of the highest.
    """
    codes = np.asarray(codes)
    has = np.zeros((len(codes), codebook_size), bool)
    has[np.arange(len(codes))[:, None], codes] = True
    shares = np.sort(has.mean(0))[::-1]
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
    draw.text((left, 4), f"{title}: {values[-1]:.4g}", "black", font)
    draw.text((4, top - 6), f"{high:.4g}", "grey", font)
    draw.text((4, top + height - 8), f"{low:.4g}", "grey", font)
    return np.asarray(canvas)


def save_png(path: str | os.PathLike[str], array: npt.ArrayLike) -> None:
    """Writes a picture as a PNG file, atomically; missing directories are created.

    The file is written under a temporary name in the same directory and then renamed, so an
    interrupted write leaves an existing file intact.

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
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", optimize=True)
    write_atomically(as_path(os.fspath(path)), file.getvalue())


def _join(parts: Pixels, axis: int, scale: int, pad: int, background: int) -> Pixels:
    """Joins the P images of each group of uint8 [P, M, H, W, 3] along axis 1 (H) or 2 (W)."""
    columns = 1 if axis == 1 else len(parts)
    tiles = [grid(group, columns, scale, pad, background) for group in parts.swapaxes(0, 1)]
    # Removes the frame that `grid` adds; the outer grid draws the gaps around a tile.
    return np.stack([tile[pad : len(tile) - pad, pad : tile.shape[1] - pad] for tile in tiles])


def _check_alike(**named: npt.ArrayLike) -> Pixels:
    """Checks that all arrays have the same shape and stacks them: uint8 [P, M, H, W, 3]."""
    arrays = {name: _check(value, name) for name, value in named.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"shapes differ ({listed}): give equally many images of one size")
    return np.stack(list(arrays.values()))


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
