"""Image files that a page sends: PNG, JPEG and WebP that cost much to decode are refused.

A file of few bytes may claim, or really hold, gigabytes of pixels or minutes of work. Decoding is
left to Pillow, which looks at one part of a file after another; here, all parts are counted first.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.data import decode_image

# The largest file that is accepted, in bytes: a PNG file of a camera of 10 million pixels.
MAX_BYTES = 2**25
# Pixels, those of a camera of 33 million: decoding takes up to 12 bytes each.
MAX_PIXELS = 2**25
MAX_PARTS = 2**15  # chunks or segments: there may be one for each KB
# Times that a JPEG file goes through the image: a progressive one has ten, in CMYK 18. It takes up
# to a second, during which nothing else in this process runs.
MAX_SCANS = 24

_PNG, _JPEG, _WEBP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", re.compile(rb"RIFF....WEBP", re.DOTALL)
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG pixel, by colour type
# First column and row of each pass of an interlaced PNG file, and the steps from one to the next.
_PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
# The next marker in the data of a scan, where 0 follows an 0xff of the data, or d0 to d7 a restart.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_EXIF = b"Exif\0\0"
_UNITS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}


def read_image(content: bytes, size: int) -> np.ndarray:
    """Decodes a PNG, JPEG or WebP file and resizes its central square: uint8 [size, size, 3].

    Raises InputError if it is none, damaged, cut off, or too large in one of the ways above.
    """
    if content.startswith(_PNG):
        _check_png(content)
    elif content.startswith(_JPEG):
        _check_jpeg(content)
    elif _WEBP.match(content):
        _check_webp(content)
    file, formats = io.BytesIO(content), ("PNG", "JPEG", "WEBP")
    return decode_image(file, size, name="you gave", formats=formats, most=MAX_PIXELS)


def _refuse(why: str) -> InputError:
    return InputError(f"cannot read image you gave: {why}: choose another one")


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _refuse(f"it is {width} x {height} pixels, more than {MAX_PIXELS:,}")


def _check_png(content: bytes) -> None:
    """Checks that a PNG file has the rows that its head claims."""
    view, heads, data = memoryview(content), [], []
    for kind, start, end in _chunks(content):
        if kind == b"IHDR":
            heads.append(view[start:end])
        elif kind == b"IDAT":
            data.append(view[start:end])
        elif data:  # a later one is not read
            break
    if len(heads) != 1 or len(heads[0]) != 13:
        raise _refuse("no PNG, JPEG or WebP: it has no head, or several")
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", heads[0])
    _check_pixels(width, height)
    bits, needed = depth * _CHANNELS.get(colour, 1), 0
    for left, top, right, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-max(width - left, 0) // right), -(-max(height - top, 0) // down)
        needed += rows * (1 + -(-columns * bits // 8)) if columns else 0
    if (held := _inflated(data, needed)) < needed:
        raise _refuse(f"it is cut off: it has {held:,} of {needed:,} bytes of pixels")


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields the kind, start and end of each chunk of a PNG file."""
    at, count = len(_PNG), 0
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        yield kind, at + 8, at + 8 + length
        at += 12 + length
        if (count := count + 1) > MAX_PARTS:
            raise _refuse(f"it has more than {MAX_PARTS:,} parts")


def _inflated(parts: list[memoryview], most: int) -> int:
    """The length of compressed data, as far as `most`, in little memory."""
    stream, size = zlib.decompressobj(), 0
    try:
        for part in parts:
            rest: bytes | memoryview = part
            while rest and size < most and not stream.eof:
                size += len(stream.decompress(rest, 2**20))
                rest = stream.unconsumed_tail
    except zlib.error as error:
        raise _refuse(f"it is damaged ({error})") from error
    return size


def _check_jpeg(content: bytes) -> None:
    """Checks the size and scans of a JPEG file, and that it has data for all of its blocks."""
    scans, blocks, data, exif, arithmetic = 0, 0, 0, b"", False
    for marker, start, end in _segments(content):
        if marker in _FRAMES and end - start >= 6:
            if blocks:
                raise _refuse("it has several heads")
            height, width = struct.unpack_from(">HH", content, start + 1)
            _check_pixels(width, height)
            blocks = -(-width // 8) * -(-height // 8)
            arithmetic = marker > 0xC8
        elif marker == _APP1 and content[start : start + len(_EXIF)] == _EXIF:
            exif += content[start + len(_EXIF) : end]
        elif marker == _SCAN:
            scans += 1
            if scans > MAX_SCANS:
                raise _refuse(f"it has more than {MAX_SCANS} scans")
            next_marker = _MARKER.search(content, end)
            data += (next_marker.start() if next_marker else len(content)) - end
    # Each block of the brightness takes a bit at least; arithmetic codes may take less.
    if blocks and not arithmetic and 8 * data < blocks:
        raise _refuse(f"it is cut off: {data:,} bytes are too few for its size")
    _check_exif(exif)


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields the marker, start and end of each segment of a JPEG file, without the data of scans.

    It is more patient with what stands between segments than a decoder.
    """
    at, count = len(_JPEG), 0
    while found := _MARKER.search(content, at):
        marker, at = content[found.start() + 1], found.end()
        if marker == _END:
            return
        if marker in (0x01, 0xD8) or at + 2 > len(content):  # without a length
            continue
        end = at + max(int.from_bytes(content[at : at + 2], "big"), 2)
        yield marker, at + 2, end
        at = end
        if (count := count + 1) > MAX_PARTS:
            raise _refuse(f"it has more than {MAX_PARTS:,} parts")


def _check_webp(content: bytes) -> None:
    """Checks the size of the canvas of a WebP file, that it is no film, and its EXIF data."""
    size, at, count = None, 12, 0
    while at + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, at)
        body = content[at + 8 : at + 8 + min(length, MAX_BYTES)]
        if kind == b"ANIM":
            raise _refuse("it is a film")
        if kind == b"EXIF":
            _check_exif(body.removeprefix(_EXIF))
        elif size is None:
            size = _webp_size(kind, body)
        at += 8 + length + length % 2
        if (count := count + 1) > MAX_PARTS:
            raise _refuse(f"it has more than {MAX_PARTS:,} parts")
    if size is None:
        raise _refuse("no PNG, JPEG or WebP: it has no head")
    _check_pixels(*size)


def _webp_size(kind: bytes, body: bytes) -> tuple[int, int] | None:
    """The width and height that the first chunk of a WebP file tells."""
    if kind == b"VP8X" and len(body) >= 10:
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and len(body) >= 10:
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _check_exif(tiff: bytes) -> None:
    """Checks that EXIF data is not longer than itself: each value is read, wherever it stands."""
    order, size = {b"II": "<", b"MM": ">"}.get(tiff[:2]), 0
    if order is None or len(tiff) < 8:
        return
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    if start + 2 > len(tiff):
        return
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    for at in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        _, kind, number = struct.unpack_from(f"{order}HHI", tiff, at)
        size += min(number * _UNITS.get(kind, 1), len(tiff))
    if size > 2 * len(tiff):
        raise _refuse("its EXIF data claims more than there is")
