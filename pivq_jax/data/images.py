"""Image files and pixel values: reading, resizing, and conversion from [0, 255] to [-1, 1]."""

import collections
import contextlib
import functools
import importlib.util
import os
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np

from pivq_jax.common.errors import InputError, brief, printable
from pivq_jax.common.storage import may_pass

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
FORMATS = tuple(
    kind for kind in _FORMATS if importlib.util.find_spec(_READERS.get(kind, "PIL")) is not None
)

# Extensions of files that are treated as images, in lower case; and those of images that nothing
# here reads, beside the above that lack a reader.
EXTENSIONS = frozenset(extension for kind in FORMATS for extension in _FORMATS[kind])
_OTHERS = ".arw .cr2 .cr3 .dng .exr .hdr .jp2 .jxl .nef .orf .psd .raf .rw2 .svg .tga"
_UNREAD = frozenset(_OTHERS.split()).union(*_FORMATS.values()) - EXTENSIONS


_STRIP = 2**20  # pixels that are converted to RGB at a time


def images_to_float(images: Any) -> Any:
    """Converts uint8 images in [0, 255], NumPy's or JAX's of any shape, to float32 in [-1, 1]."""
    return images.astype("float32") / 127.5 - 1.0


def images_to_uint8(images: Any) -> Any:
    """Converts float images in [-1, 1] to uint8, rounded and clipped; undoes `images_to_float`."""
    return ((images.astype("float32") + 1.0) * 127.5).clip(0.0, 255.0).round().astype("uint8")


def _suffix(name: str) -> str:
    """Returns the extension in lower case, or '' for a hidden file, such as `._x.jpg` of macOS."""
    base = os.path.basename(name)
    return "" if base.startswith(".") else os.path.splitext(base)[1].lower()


def is_image(name: str) -> bool:
    """Whether a file is treated as an image: by its extension, unless it is hidden."""
    return _suffix(name) in EXTENSIONS


def unread_kinds(names: Iterable[str]) -> str:
    """Describes in a line the images whose format nothing here reads; empty if there are none."""
    unread = collections.Counter(suffix for suffix in map(_suffix, names) if suffix in _UNREAD)
    if not unread:
        return ""
    counts = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(unread.items()))
    heif = " (.heic: pip install pillow-heif)" if unread.keys() & {*_FORMATS["HEIF"]} else ""
    return f"{counts} are not read{heif}"


def kinds(names: Iterable[str]) -> str:
    """Describes in a line which files are images, and those of other formats among the names."""
    unread = unread_kinds(names)
    return f"files that end in {' '.join(sorted(EXTENSIONS))}" + (f"; {unread}" if unread else "")


def readable_name(path: str | os.PathLike[str]) -> str:
    """Returns a path as printable text: invalid UTF-8 is replaced, control characters escaped."""
    return printable(os.fsencode(path).decode(errors="replace"))


@functools.cache
def pillow() -> Any:
    """Returns the module `PIL.Image`, which reads HEIC if it can, to open files with."""
    from PIL import Image

    if "HEIF" in FORMATS:
        import pillow_heif

        pillow_heif.register_heif_opener()
    # It warns of images with half of the pixels that it refuses, and these are read.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    return Image


class ShapeError(InputError):
    """A readable image that does not have the required size."""


def load_image(path: str | os.PathLike[str], size: int) -> np.ndarray:
    """Reads an image file, uint8 [size, size, 3]; see `decode_image`, also for what it raises."""
    return decode_image(path, size, name=readable_name(path))


def decode_image(
    file: str | os.PathLike[str] | IO[bytes],
    size: int,
    *,
    name: str,
    crop: int = 0,
    shape: tuple[int, int] | None = None,
    formats: Sequence[str] = FORMATS,
    most: int = 0,
) -> np.ndarray:
    """Decodes an image and resizes its central square, to uint8 [size, size, 3].

    It is turned upright by its EXIF data and becomes RGB, opaque on white; resizing is antialiased
    (Lanczos). Images of more than 178,956,970 pixels, Pillow's limit, are refused by their header.

    Args:
        file: path of the image, or its opened file.
        size: side of the result in pixels.
        name: name of the image in error messages.
        crop: side of the central square in pixels; 0: the largest one.
        shape: the (width, height) that the image must have.
        formats: formats that are read, as Pillow names them.
        most: number of pixels above which an image is refused by its header; 0: Pillow's limit.

    Raises:
        InputError: if it is no image of these formats, damaged or too large.
        ShapeError: an InputError, if it has another shape than `shape`, or is smaller than `crop`.
        FileNotFoundError: if there is no such file.
    """
    image = _decode(file, name, formats, crop, shape, most)
    side = crop or min(image.size)
    if image.size != (side, side):
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if image.size != (size, size):  # it would be copied
        image = image.resize((size, size), pillow().Resampling.LANCZOS)
    return np.array(image)


def decode_whole(file: str | os.PathLike[str] | IO[bytes], *, name: str) -> np.ndarray:
    """Decodes an image as `decode_image` does, but all of it, not resized: uint8 [H, W, 3]."""
    return np.array(_decode(file, name, FORMATS))


@contextlib.contextmanager
def damage_as_input_error(what: str, remedy: str = "") -> Iterator[None]:
    """Converts an error on reading a damaged file to an `InputError` that begins with `what`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # libraries raise almost any type for a damaged file
        # The storage is the reason, or this machine: nobody should record that as damage.
        if may_pass(error) or isinstance(error, MemoryError):
            raise
        reason = brief(error)
        message = f"{what} ({reason}): {remedy}" if remedy else f"{what}: {reason}"
        raise InputError(message) from error


def _decode(
    file: str | os.PathLike[str] | IO[bytes],
    name: str,
    formats: Sequence[str],
    crop: int = 0,
    shape: tuple[int, int] | None = None,
    most: int = 0,
) -> Any:
    """Returns an upright RGB image of Pillow."""
    from PIL import UnidentifiedImageError

    if isinstance(file, str | os.PathLike):
        os.stat(file)  # fails if it is gone, which is no damage: it may come back
    with damage_as_input_error(f"cannot read image {name}"), contextlib.ExitStack() as stack:
        if isinstance(file, str | os.PathLike):
            file = stack.enter_context(open(file, "rb"))
        try:
            opened = stack.enter_context(pillow().open(file, formats=formats))
        except UnidentifiedImageError as error:
            reason = "not an image of a known format"
            if formats is not FORMATS:
                reason = f"it is no {' or '.join(formats)} image: choose another one"
            raise InputError(f"cannot read image {name}: {reason}") from error
        width, height = opened.size
        if most and width * height > most:
            raise InputError(
                f"the image {name} is {width} x {height} pixels, more than {most:,}: reduce it"
            )
        if shape is not None and (width, height) != shape:
            raise ShapeError(f"{name} is {width} x {height} pixels, not {shape[0]} x {shape[1]}")
        if crop > min(width, height):
            raise ShapeError(f"{name} is {width} x {height} pixels, less than the crop of {crop}")
        opened.load()
        return _to_rgb(_apply_orientation(opened))


def _apply_orientation(image: Any) -> Any:
    """Turns an image as its EXIF data says.

    Where this is a part of the file of its own, one tag of it is read: Pillow reads all, and in a
    crafted file of 64 KB they all hold the same 64 KB, which makes hundreds of MB.
    """
    from PIL import Image, ImageOps

    exif = image.info.get("exif")
    if exif is None and isinstance(text := image.info.get("Raw profile type exif"), str):
        with contextlib.suppress(ValueError):  # after three lines of a head, of ImageMagick
            exif = bytes.fromhex("".join(text.split("\n")[3:]))
    if not isinstance(exif, bytes):
        # It turns the pixels before it writes the other tags anew, which raises these if one of
        # them has another type or size than it must have.
        odd = (ArithmeticError, AttributeError, LookupError, SyntaxError, TypeError, ValueError)
        with contextlib.suppress(*odd, struct.error):
            ImageOps.exif_transpose(image, in_place=True)
        return image
    turn = Image.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    orientation = _orientation(exif.removeprefix(b"Exif\0\0"))
    return image.transpose(turns[orientation]) if orientation in turns else image


def _orientation(tiff: bytes) -> int:
    """The orientation in EXIF data, which has the form of a TIFF file; 1, upright, without one."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    with contextlib.suppress(struct.error):
        if order is None:
            return 1
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for i in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * i)
            if (tag, kind) == (0x0112, 3):  # the orientation, a number of 16 bits
                return int(value)
    return 1


def _to_rgb(image: Any) -> Any:
    """Returns an image in RGB, on white where it is transparent; itself if it is that already.

    It is converted a strip at a time: on the way, pixels take up to five times their memory.
    """
    from PIL import Image

    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    white = 65535.0
    if image.mode == "F":  # the range of floats varies between files
        white = next((top for top in (1.0, 255.0) if image.getextrema()[1] <= top), white)
    rows = max(_STRIP // image.width, 1)
    if rows >= image.height:
        return _strip_to_rgb(image, white)
    whole = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        whole.paste(_strip_to_rgb(strip, white), (0, top))
    return whole


def _strip_to_rgb(image: Any, white: float) -> Any:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        # Grey with 16 bits or more: Pillow's own conversion clips at 255 instead of scaling.
        values: Any = np.asarray(image, np.float32)
        if not np.isfinite(values).all():
            raise ValueError("it has pixels that are NaN or infinite")
        values = values.clip(0.0, white) * (255.0 / white)
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(canvas, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")  # which copies
