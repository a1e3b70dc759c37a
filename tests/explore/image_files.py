"""Image files in memory, among them those that claim what they do not hold."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def content_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(width: int = 30, height: int = 20) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG file."""
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def claimed_png(width: int, height: int) -> bytes:
    """A PNG file of hardly any bytes whose header claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def claimed_jpeg(width: int, height: int) -> bytes:
    """A JPEG file of a small picture whose frame claims another size."""
    content = bytearray(content_of(picture(), "JPEG"))
    start = content.index(b"\xff\xc0") + 5  # the frame: height, width
    content[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(content)
