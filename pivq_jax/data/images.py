"""Image files and pixel values: reading, resizing, and uint8 [0, 255] <-> float32 [-1, 1]."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from pivq_jax.errors import InputError

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
        for path in root.rglob("*")
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    )
    files = sorted(found, key=lambda path: path.relative_to(root).as_posix())
    if not files:
        kinds = " ".join(sorted(EXTENSIONS))
        raise InputError(f"no image in {root}: put files into it that end in one of {kinds}")
    return files


def load_image(path: str | os.PathLike[str], size: int) -> np.ndarray:
    """Reads an image file as uint8 [size, size, 3].

    Turned as its EXIF orientation says, grey and CMYK converted to RGB, transparency laid on white,
    the shorter side resized to `size` (antialiased, Lanczos) and the longer one cropped centrally.

    Raises:
      InputError: the file is no readable image; the message names it and the reason.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            image = _to_rgb(ImageOps.exif_transpose(file))
        image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    except UnidentifiedImageError as error:
        path = os.fspath(path)
        raise InputError(f"cannot read image {path}: not an image of a known format") from error
    except Exception as error:  # Pillow's decoders raise nearly any type on a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot read image {os.fspath(path)}: {reason}") from error
    return np.array(image)


def _to_rgb(image: Any) -> Any:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit grey: Pillow's own conversion would clip at 255 instead of scaling.
        values = np.asarray(image, np.float32)
        scale = 65535.0 if values.max() > 255.0 else 255.0
        return Image.fromarray(np.uint8(values.clip(0.0, scale) * (255.0 / scale))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image)
        image = canvas
    return image.convert("RGB")
