"""Image files and pixel values: reading, resizing, and conversion from [0, 255] to [-1, 1]."""

import collections
import contextlib
import functools
import importlib.util
import io
import os
import warnings
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np

from pivq_jax.common.errors import InputError, brief, printable

# Extensions of each of Pillow's formats. No other format is decoded, whatever a file is named:
# Pillow runs Ghostscript on PostScript, for example.
_FORMATS = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif"),
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg"),
    "PNG": (".png",),
    "PPM": (".pgm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}

# Modules that read formats which not every installation of Pillow reads.
_READERS = {"AVIF": "PIL._avif", "HEIF": "pillow_heif"}


def _has_reader(kind: str) -> bool:
    try:
        return kind not in _READERS or importlib.util.find_spec(_READERS[kind]) is not None
    except ImportError:  # Pillow itself is missing
        return False


FORMATS = tuple(kind for kind in _FORMATS if _has_reader(kind))

# Extensions of files that are treated as images, in lower case.
EXTENSIONS = frozenset(extension for kind in FORMATS for extension in _FORMATS[kind])

# Extensions of images that nothing here reads, beside the above that lack a reader.
_OTHERS = ".arw .cr2 .cr3 .dng .exr .hdr .jp2 .jxl .nef .orf .psd .raf .rw2 .svg .tga"
_UNREAD = (
    frozenset(_OTHERS.split()) | {e for kind in _FORMATS.values() for e in kind}
) - EXTENSIONS

# Pixels of the largest image that is decoded, that of a camera of 50 million. Up to 20 bytes a
# pixel are in memory at once (WebP with transparency), 1 GB in each thread, of a file of a few KB.
MAX_PIXELS = 8_192 * 6_144

# Of a JPEG file up to this size every second row and column may be decoded; the coefficients of all
# may be in memory. That of a camera of 108 million.
MAX_HALVED_PIXELS = 12_032 * 9_024


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
    """Whether a file is treated as an image: by its extension, unless it is hidden."""
    base = os.path.basename(name)  # hidden ones include `._x.jpg` of macOS
    return os.path.splitext(base)[1].lower() in EXTENSIONS and not base.startswith(".")


def readable_name(path: str | os.PathLike[str]) -> str:
    """Returns a path as printable text.

    Bytes that are not valid UTF-8 are replaced, and control characters are escaped.
    """
    return printable(os.fsencode(path).decode(errors="replace"))


def unread_kinds(names: Iterable[str]) -> str:
    """Describes the images that are passed over because nothing here reads their format, in a line.

    It names the package that reads them, where one is known; it is empty if there are none. Hidden
    files do not count.
    """
    found = collections.Counter(
        suffix
        for name in names
        if (suffix := os.path.splitext(name)[1].lower()) in _UNREAD
        and not os.path.basename(name).startswith(".")
    )
    if not found:
        return ""
    counts = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(found.items()))
    heif = " (.heic: pip install pillow-heif)" if found.keys() & {*_FORMATS["HEIF"]} else ""
    return f"{counts} are not read{heif}"


@functools.cache
def _pillow_with_heic() -> Any:
    from PIL import Image

    if "HEIF" in FORMATS:
        import pillow_heif

        pillow_heif.register_heif_opener()
    return Image


def pillow() -> Any:
    """Returns the module `PIL.Image`, to open files with.

    It reads HEIC if there is a reader, and does not warn of images of 89 million pixels, which
    those who open files with it refuse, or decode at half their size.
    """
    Image = _pillow_with_heic()
    # Asked for each file: a program that restores its filters of warnings takes this one away. Not
    # added twice: each addition makes Python repeat warnings that it shows once.
    if ("ignore", None, Image.DecompressionBombWarning, None, 0) not in warnings.filters:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    return Image


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
    """Decodes an image and resizes its central square, to uint8 [size, size, 3].

    The image is rotated according to its EXIF orientation, grey and CMYK images are converted to
    RGB, and transparency is composited onto white. Resizing is antialiased (Lanczos). Images of
    more than `MAX_PIXELS` are refused, except for JPEG files of up to `MAX_HALVED_PIXELS`, of which
    every second row and column is decoded.

    `name` is the file's in error messages, `crop` the side of the square in pixels, 0 for the
    largest one. An image of another (width, height) than `shape`, or smaller than `crop`, is a
    ShapeError.
    """
    Image = pillow()
    with _damage_named(name):
        image = _decode(file, name, crop, shape)
        side = crop or min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        return np.array(square.resize((size, size), Image.Resampling.LANCZOS))


def decode_whole(file: str | os.PathLike[str] | IO[bytes], *, name: str) -> np.ndarray:
    """Decodes an image as `decode_image` does, but all of it, not resized: uint8 [H, W, 3]."""
    with _damage_named(name):
        return np.array(_decode(file, name, 0, None))


def _decode(
    file: str | os.PathLike[str] | IO[bytes], name: str, crop: int, shape: tuple[int, int] | None
) -> Any:
    """Returns an upright RGB image of Pillow."""
    from PIL import ImageOps

    with pillow().open(file, formats=FORMATS) as opened:
        width, height = opened.size
        if shape is not None and (width, height) != shape:
            raise ShapeError(f"{name} is {width} x {height} pixels, not {shape[0]} x {shape[1]}")
        if crop > min(width, height):
            raise ShapeError(f"{name} is {width} x {height} pixels, less than the crop of {crop}")
        if MAX_PIXELS < width * height <= MAX_HALVED_PIXELS and not crop:
            opened.draft(None, (width // 2, height // 2))  # does nothing but for JPEG
        if opened.width * opened.height > MAX_PIXELS:
            raise InputError(
                f"cannot read image {name}: {width} x {height} pixels are more than"
                f" {MAX_PIXELS:,}: make it smaller"
            )
        ImageOps.exif_transpose(opened, in_place=True)
        return _to_rgb(opened)


@contextlib.contextmanager
def _damage_named(name: str) -> Iterator[None]:
    """Converts what Pillow raises for a damaged file to an `InputError` that names the file."""
    from PIL import UnidentifiedImageError

    try:
        yield
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"cannot read image {name}: not an image of a known format") from error
    except Exception as error:  # Pillow's decoders raise almost any type for a damaged file
        raise InputError(f"cannot read image {name}: {brief(error)}") from error


def encode_png(image: np.ndarray) -> bytes:
    """Encodes an image, uint8 [H, W, 3], as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


def _to_rgb(image: Any) -> Any:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        # Grey with 16 bits or more: Pillow's own conversion clips at 255 instead of scaling.
        values = np.array(image, np.float32)
        scale = 65535.0
        if image.mode == "F":  # the range varies between files and is inferred from the values
            if not (np.isfinite(values.min()) and np.isfinite(values.max())):
                raise ValueError("it has pixels that are NaN or infinite")
            scale = next((top for top in (1.0, 255.0) if values.max() <= top), scale)
        np.clip(values, 0.0, scale, out=values)
        values *= 255.0 / scale
        return Image.fromarray(np.uint8(values)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        if image.mode != "RGBA":
            image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image)
        image = canvas
    return image.convert("RGB")
