"""Image files and pixel values: reading, resizing, and uint8 [0, 255] <-> float32 [-1, 1]."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from pivq_jax.common.errors import InputError

# The endings of files that count as images, in lower case.
EXTENSIONS = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)


def images_to_float(images: Any) -> Any:
    """uint8 images in [0, 255] -> float32 in [-1, 1]; NumPy and JAX arrays of any shape."""
    return images.astype("float32") / 127.5 - 1.0


def images_to_uint8(images: Any) -> Any:
    """float images in [-1, 1] -> uint8, rounded, and clipped outside; NumPy and JAX arrays."""
    return ((images.astype("float32") + 1.0) * 127.5).clip(0.0, 255.0).round().astype("uint8")


def walk(root: Path) -> Iterator[Path]:
    """The files of a directory tree; links are followed, each directory is entered once.

    Links come last, so that a file keeps its name when a link to its directory is added.
    """
    entered, starts = set(), [os.fspath(root)]
    while starts:
        for directory, below, names in os.walk(starts.pop(0)):
            stat = os.stat(directory)
            if (stat.st_dev, stat.st_ino) in entered:
                below.clear()
                continue
            entered.add((stat.st_dev, stat.st_ino))
            below.sort()  # so that of two links to a directory the same one is entered every time
            inside = (os.path.join(directory, name) for name in below)
            starts += filter(os.path.islink, inside)
            # A link to nothing does not exist.
            yield from (path for name in names if (path := Path(directory, name)).exists())


def list_images(directory: str | os.PathLike[str]) -> list[Path]:
    """The image files of a directory tree, by extension, sorted by relative path.

    Hidden files (such as macOS' `._x.jpg`) do not count.

    Raises:
      InputError: no such directory, or no image in it.
    """
    root = Path(directory).expanduser()
    if not root.exists():
        raise InputError(f"no directory {root}: give the path of a directory of images")
    if not root.is_dir():
        raise InputError(f"{root} is a file: give the path of a directory of images")
    found = (
        path
        for path in walk(root)
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    )
    files = sorted(found, key=lambda path: path.relative_to(root).as_posix())
    if not files:
        kinds = " ".join(sorted(EXTENSIONS))
        raise InputError(f"no image in {root}: put files into it that end in one of {kinds}")
    return files


def readable_name(path: str | os.PathLike[str]) -> str:
    """A path as it can be printed and stored: names that are no UTF-8 cannot as they are."""
    return os.fsencode(path).decode(errors="replace")


class ShapeError(InputError):
    """An image that can be read but has not the size it should have."""


def load_image(path: str | os.PathLike[str], size: int) -> np.ndarray:
    """Reads an image file as uint8 [size, size, 3], as `decode_image` does.

    Raises:
      InputError: the file is no readable image; the message names it and the reason.
    """
    return decode_image(path, size, name=readable_name(path))


def decode_image(
    file: str | os.PathLike[str] | IO[bytes],
    size: int,
    *,
    name: str,
    crop: int = 0,
    shape: tuple[int, int] | None = None,
) -> np.ndarray:
    """Decodes an image as uint8 [size, size, 3].

    Turned as its EXIF orientation says, grey and CMYK converted to RGB, transparency laid on white,
    then the central square resized (antialiased, Lanczos).

    Args:
      file: the path or the open file.
      size: height and width of the result.
      name: the file's name in messages.
      crop: the side of the central square in pixels; as large as fits by default.
      shape: the (width, height) that the image must have, if any.

    Raises:
      ShapeError: another shape, or smaller than `crop`.
      InputError: no readable image; the message names it and the reason.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file) as opened:
            width, height = opened.size
            if shape is not None and (width, height) != shape:
                raise ShapeError(
                    f"{name} is {width} x {height} pixels, not {shape[0]} x {shape[1]}"
                )
            if crop > min(width, height):
                raise ShapeError(
                    f"{name} is {width} x {height} pixels, less than the crop of {crop}"
                )
            image = _to_rgb(ImageOps.exif_transpose(opened))
        side = crop or min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        resized = square.resize((size, size), Image.Resampling.LANCZOS)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"cannot read image {name}: not an image of a known format") from error
    except Exception as error:  # Pillow's decoders raise nearly any type on a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot read image {name}: {reason}") from error
    return np.array(resized)


def encode_png(image: np.ndarray) -> bytes:
    """A PNG file of an image uint8 [H, W, 3]."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


def _to_rgb(image: Any) -> Any:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        # Grey of 16 bits or more: Pillow's own conversion would clip at 255 instead of scaling.
        values = np.asarray(image, np.float32)
        scale = 65535.0
        if image.mode == "F":  # these come in several ranges: the values decide
            scale = next((top for top in (1.0, 255.0) if values.max() <= top), scale)
        return Image.fromarray(np.uint8(values.clip(0.0, scale) * (255.0 / scale))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image)
        image = canvas
    return image.convert("RGB")
