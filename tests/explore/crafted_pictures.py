"""Pictures of few bytes that would take gigabytes, or minutes, or are not whole."""

import struct
import zlib
from collections.abc import Callable, Iterable

from PIL import Image

from tests.explore.image_files import chunk, claimed_jpeg, claimed_png, content_of, picture

MOST = 5_792  # side of a square at the limit of pixels of an upload
GREY, RGB, RGBA = 0, 2, 6  # colour types of PNG
CHANNELS = {GREY: 1, RGB: 3, RGBA: 4}


def png(
    width: int,
    height: int,
    depth: int = 8,
    colour: int = RGB,
    rows: int | None = None,
    interlaced: bool = False,
    before: Iterable[bytes] = (),
) -> bytes:
    """A black PNG file; with `rows`, of fewer than its head claims."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    size = 1 + -(-width * depth * CHANNELS[colour] // 8)
    total = size * (height if rows is None else rows)
    if interlaced and rows is None:
        total += 14 * height  # filters of seven passes, and bits that fill bytes
    data = chunk(b"IDAT", zlib.compress(bytes(total), 9))
    chunks = [chunk(b"IHDR", head), *before, data, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def exif(size: int, orientation: int = 1) -> bytes:
    """EXIF data of so many bytes, most of which each of its values claims."""
    entries = min((size - 14) // 12, 30_000)
    rows = [struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)]
    claims = (struct.pack("<HHII", 0x1000 + i, 7, size - 100, 8) for i in range(entries - 1))
    count = struct.pack("<H", entries)
    return (b"II*\0\x08\0\0\0" + count + b"".join([*rows, *claims])).ljust(size, b"\0")


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg(image: Image.Image, before: bytes = b"", scans: int = 0) -> bytes:
    """A progressive JPEG file with more segments, and its last scan again until there are these."""
    content = content_of(image, "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    more = scans - content.count(b"\xff\xda")
    return content[:2] + before + content[2:-2] + content[last:-2] * more + content[-2:]


def two_heads() -> bytes:
    return png(9, 9, before=[chunk(b"IHDR", struct.pack(">IIBBBBB", 13_377, 9, 8, 2, 0, 0, 0))])


def exif_in_a_profile() -> bytes:
    text = zlib.compress(f"\n\n\n{exif(4 * 10**5, 6).hex()}".encode(), 9)
    return png(9, 9, before=[chunk(b"zTXt", b"Raw profile type exif\0\0" + text)])


def compressed_text() -> bytes:
    return png(9, 9, before=[chunk(b"zTXt", b"name\0\0" + zlib.compress(bytes(10**9), 9))] * 3)


LARGE = "pixels, more than 33,554,432"
CUT = "cut off"
SCANS = "more than 24 scans"
PARTS = "more than 32,768 parts"
PILLOWS = "Decompressed data too large"  # a refusal of Pillow's own
# What each of them is refused for, empty if it is read, and what makes it.
CRAFTED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "many pixels, few rows": (LARGE, lambda: png(13_377, 13_377, 8, RGBA, 64)),
    "a claimed PNG": (LARGE, lambda: claimed_png(100_000, 100_000)),
    "a claimed JPEG": (LARGE, lambda: claimed_jpeg(60_000, 60_000)),
    "64 rows": (CUT, lambda: png(MOST, MOST, 8, RGBA, 64)),
    "interlaced, 64 rows": (CUT, lambda: png(MOST, MOST, 8, RGBA, 64, True)),
    "one row less": (CUT, lambda: png(40, 30, 8, RGB, 29)),
    "a claimed JPEG within the limit": (CUT, lambda: claimed_jpeg(5_000, 5_000)),
    "3,000 scans": (SCANS, lambda: jpeg(picture(), scans=3_000)),
    "segments": (PARTS, lambda: jpeg(picture(), segment(0xFE, b"") * 100_000)),
    "chunks": (PARTS, lambda: png(9, 9, before=[chunk(b"abCd", b"")] * 10**5)),
    "two heads": ("no head, or several", two_heads),
    "EXIF of a JPEG": (
        "EXIF data claims more",
        lambda: jpeg(picture(), segment(0xE1, b"Exif\0\0" + exif(65_000))),
    ),
    "EXIF of a PNG": ("", lambda: png(9, 9, before=[chunk(b"eXIf", exif(10**6, 6))])),
    "EXIF in a profile": ("", exif_in_a_profile),
    "compressed text": (PILLOWS, compressed_text),
    "RGBA of 16 bit": ("", lambda: png(MOST, MOST, 16, RGBA)),
    "interlaced": ("", lambda: png(MOST, MOST, 8, RGBA, None, True)),
    "a row": ("", lambda: png(2**25, 1)),
    "turned": ("", lambda: png(MOST, MOST, 8, RGBA, before=[chunk(b"eXIf", exif(100, 6))])),
    "CMYK": ("", lambda: jpeg(Image.new("CMYK", (MOST, MOST)))),
    "24 scans": ("", lambda: jpeg(Image.new("RGB", (MOST, MOST)), scans=24)),
}
