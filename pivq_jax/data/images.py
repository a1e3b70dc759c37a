"""Image files and pixel values: reading, resizing, and conversion from [0, 255] to [-1, 1]."""

import io
import os
from typing import IO, Any

import numpy as np

from pivq_jax.common.errors import InputError

# Extensions of files that are treated as images, in lower case.
EXTENSIONS = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)


def images_to_float(images: Any) -> Any:
    """Converts uint8 images in [0, 255] to float32 in [-1, 1].

    Args:
        images: NumPy or JAX array of any shape.

    Returns:
        An array of the same kind and shape.
    """
    return images.astype("float32") / 127.5 - 1.0


def images_to_uint8(images: Any) -> Any:
    """Converts float images in [-1, 1] to uint8, rounded and clipped to [0, 255].

    Args:
        images: NumPy or JAX array of any shape.

    Returns:
        An array of the same kind and shape.
    """
    return ((images.astype("float32") + 1.0) * 127.5).clip(0.0, 255.0).round().astype("uint8")


def is_image(name: str) -> bool:
    """Whether a file is treated as an image: by its extension, unless it is hidden.

    Args:
        name: name or path of the file.
    """
    base = os.path.basename(name)  # hidden ones include `._x.jpg` of macOS
    return os.path.splitext(base)[1].lower() in EXTENSIONS and not base.startswith(".")


def readable_name(path: str | os.PathLike[str]) -> str:
    """Returns a path as printable text; bytes that are not valid UTF-8 are replaced.

    Args:
        path: any path.
    """
    return os.fsencode(path).decode(errors="replace")


class ShapeError(InputError):
    """A readable image that does not have the required size."""


def load_image(path: str | os.PathLike[str], size: int) -> np.ndarray:
    """Reads an image file; see `decode_image`.

    Args:
        path: the file.
        size: height and width of the result in pixels.

    Returns:
        uint8 [size, size, 3].

    Raises:
        InputError: if the file is not a readable image; the message contains its name and the
            reason.
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
    """Decodes an image and resizes its central square.

    The image is rotated according to its EXIF orientation, grey and CMYK images are converted to
    RGB, and transparency is composited onto white. Resizing is antialiased (Lanczos).

    Args:
        file: the path or the open file.
        size: height and width of the result in pixels.
        name: name of the file in error messages.
        crop: side of the central square in pixels; 0 for the largest square.
        shape: required (width, height) of the image; None for any.

    Returns:
        uint8 [size, size, 3].

    Raises:
        ShapeError: if the image has a different shape or is smaller than `crop`.
        InputError: if it is not a readable image; the message contains its name and the reason.
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
    except Exception as error:  # Pillow's decoders raise almost any type for a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot read image {name}: {reason}") from error
    return np.array(resized)


def encode_png(image: np.ndarray) -> bytes:
    """Encodes an image as PNG.

    Args:
        image: uint8 [H, W, 3].

    Returns:
        The contents of the file.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


def _to_rgb(image: Any) -> Any:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        # Grey with 16 bits or more: Pillow's own conversion clips at 255 instead of scaling.
        values = np.asarray(image, np.float32)
        scale = 65535.0
        if image.mode == "F":  # the range varies between files and is inferred from the values
            scale = next((top for top in (1.0, 255.0) if values.max() <= top), scale)
        return Image.fromarray(np.uint8(values.clip(0.0, scale) * (255.0 / scale))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image)
        image = canvas
    return image.convert("RGB")
