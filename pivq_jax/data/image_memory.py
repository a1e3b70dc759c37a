"""What an image file may take in memory, told from its header: 256 MiB, whatever it claims.

Pillow's own limits are of pixels, ten times as many, and of text in PNG files.
"""

import os
import struct
from collections.abc import Iterator
from typing import IO, Any

from pivq_jax.common.errors import InputError

# Bytes for the pixels of one image, in all forms that exist at once: of 27 million pixels as two
# copies in RGB, which Pillow keeps in four bytes each.
MAX_MEMORY = 208 * 2**20

# Bytes of a header, all of which Pillow keeps; and of a WebP or HEIF file, which it reads as a
# whole. AVIF files are, too, but become numbers of Python if they are all Exif, 36 bytes for two.
_MAX_HEADER = 2**23
_MAX_WHOLE = 2**26

# Bytes of Exif or of the tags of a TIFF file, which become numbers likewise, beside the pixels; and
# of the parts of a PNG file that are no pixels, wherever they are.
_MAX_TAGS = 2**20
_MAX_PARTS = 2**24

_PNG = b"\x89PNG\r\n\x1a\n"


class Header:
    """A file of which no more than a header may be read, until it is `passed`."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name = file, name
        head = file.read(16)
        whole = head.startswith(b"RIFF") or head[4:11] in (b"ftyphei", b"ftyphev")
        self._most = self._left = _MAX_WHOLE if whole else _MAX_HEADER
        self._passed = False
        if head.startswith(_PNG):
            _check_metadata(sum(_png_parts(file)), _MAX_PARTS, name)
        file.seek(0)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._file, attribute)

    def read(self, size: int = -1) -> bytes:
        if self._passed:
            return self._file.read(size)
        content = self._file.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise InputError(
                f"cannot read image {self._name}: more than {self._most:,} bytes come before its"
                " pixels: make it smaller, or save it without metadata"
            )
        return content

    def passed(self, opened: Any) -> None:
        """Allows to read all, now that Pillow has opened the image."""
        self._passed = True
        if opened.format == "TIFF":
            _check_metadata(self._most - self._left, _MAX_TAGS, self._name)
        check_exif(opened, self._name)


def check_exif(image: Any, name: str) -> None:
    """Refuses an image of Pillow with much Exif; a PNG file may have it at its end."""
    _check_metadata(len(image.info.get("exif", b"")), _MAX_TAGS, name)


def max_pixels(opened: Any, halved: bool = False) -> int:
    """Returns how many pixels an image of Pillow, not yet loaded, may have.

    If `halved`, the same where every second row and column is decoded, which is for JPEG only.
    """
    fixed, per_pixel = 0, 8.0  # bytes
    if opened.format in ("JPEG", "MPO"):
        kept = _coefficients(opened)
        per_pixel = max(kept + 1, 2) if halved else max(kept + 4, 8)
    elif opened.format in ("WEBP", "AVIF"):  # there are several copies within their decoders
        fixed, per_pixel = 2 * _size(opened.fp), 20
    elif opened.format == "TIFF":
        # While it is loaded, a strip or tile as it is in the file is there beside the image.
        part = _tiff_part(opened) + _size(opened.fp)
        if 4 * opened.width * opened.height + part > MAX_MEMORY:
            fixed, per_pixel = part, 4
    return max(int((MAX_MEMORY - fixed) / per_pixel), 0)


def _check_metadata(size: int, most: int, name: str) -> None:
    if size > most:
        raise InputError(
            f"cannot read image {name}: {size:,} bytes of metadata are more than {most:,}: save it"
            " without them"
        )


def _size(file: IO[bytes]) -> int:
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(position)
    return size


def _png_parts(file: IO[bytes]) -> Iterator[int]:
    """Yields the bytes in memory of each part of a PNG file that is no pixels."""
    position, end = len(_PNG), _size(file)
    while position + 8 <= end:
        file.seek(position)
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind in (b"zTXt", b"iTXt", b"iCCP"):  # Pillow decompresses up to a MiB of each
            yield max(length, min(1_000 * length, 2**20))
        elif kind not in (b"IDAT", b"fdAT"):
            yield length
        position += 12 + length


def _tiff_part(opened: Any) -> int:
    """Returns the bytes of a strip or tile of a TIFF file, twice: as the decoders have it."""
    tags = opened.tag_v2

    def number(tag: int, otherwise: int) -> int:
        value = tags.get(tag, otherwise)
        return value if isinstance(value, int) and value > 0 else otherwise

    if number(259, 1) == 1:  # not compressed: read row by row
        return 0
    bits = tags.get(258, (1,))
    depth = sum(bits) if isinstance(bits, tuple) and len(bits) > 1 else 8 * number(277, 1)
    width, rows = opened.width, min(number(278, opened.height), opened.height)
    if 322 in tags:
        width, rows = number(322, width), number(323, rows)
    return 2 * width * rows * depth // 8


def _coefficients(opened: Any) -> float:
    """Returns the bytes of each pixel that libjpeg holds while it decodes a JPEG file.

    Those are all its coefficients, unless the first scan has all colours of every pixel.
    """
    position, length = opened.fp.tell(), 6 + 2 * opened.layers
    opened.fp.seek(max(position - length, 0))
    scan = opened.fp.read(3)
    opened.fp.seek(position)
    if "progressive" not in opened.info and scan == struct.pack(">HB", length, opened.layers):
        return 0
    steps = [(across, down) for _, across, down, _ in opened.layer]
    most = max(across for across, _ in steps) * max(down for _, down in steps)
    return 2 * sum(across * down for across, down in steps) / most
