"""Pictures of few bytes that would take gigabytes, or minutes, or are not whole."""

import functools
import struct
import zlib
from collections.abc import Callable, Iterable

from PIL import Image

from tests.explore.image_files import claimed_jpeg, claimed_png, content_of, picture

HUGE, MOST = 13_377, 5_792  # sides of squares at Pillow's limit of pixels and at that of uploads
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # colour types of PNG
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}


def chunk(kind: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


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
    stream = zlib.compressobj(9)
    parts = [stream.compress(bytes(min(2**24, total - at))) for at in range(0, total, 2**24)]
    palette = [chunk(b"PLTE", bytes(768))] if colour == PALETTE else []
    data = chunk(b"IDAT", b"".join([*parts, stream.flush()]))
    chunks = [chunk(b"IHDR", head), *before, *palette, data, chunk(b"IEND", b"")]
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


def text(kind: bytes, size: int) -> bytes:
    return chunk(kind, b"name\0\0" + zlib.compress(bytes(size), 9))


PROFILE = b"Raw profile type exif\0\0"
LARGE = "pixels, more than 33,554,432"
CUT = "cut off"
PILLOWS = "Decompressed data too large"  # a refusal of Pillow's own
# What each of them is refused for, empty if it is read, and what makes it.
CRAFTED: dict[str, tuple[str, Callable[[], bytes]]] = {
    **{
        f"{name}, 64 rows of {HUGE:,}": (LARGE, functools.partial(png, HUGE, HUGE, *form, 64))
        for name, form in {
            "RGBA": (8, RGBA),
            "LA": (8, GREY_ALPHA),
            "16 bit": (16, GREY),
            "RGB of 16 bit": (16, RGB),
            "RGBA of 16 bit": (16, RGBA),
            "palette": (8, PALETTE),
            "1 bit": (1, GREY),
        }.items()
    },
    "RGBA, 64 rows": (CUT, lambda: png(MOST, MOST, 8, RGBA, 64)),
    "interlaced, 64 rows": (CUT, lambda: png(MOST, MOST, 8, RGBA, 64, True)),
    "one row less": (CUT, lambda: png(40, 30, 8, RGB, 29)),
    "a claimed PNG": (LARGE, lambda: claimed_png(100_000, 100_000)),
    "a claimed JPEG": (LARGE, lambda: claimed_jpeg(60_000, 60_000)),
    "a claimed JPEG within the limit": (CUT, lambda: claimed_jpeg(5_000, 5_000)),
    "RGBA": ("", lambda: png(MOST, MOST, 8, RGBA)),
    "LA": ("", lambda: png(MOST, MOST, 8, GREY_ALPHA)),
    "16 bit": ("", lambda: png(MOST, MOST, 16, GREY)),
    "RGBA of 16 bit": ("", lambda: png(MOST, MOST, 16, RGBA)),
    "interlaced": ("", lambda: png(MOST, MOST, 8, RGBA, None, True)),
    "a row": ("", lambda: png(2**25, 1)),
    "a column": ("", lambda: png(1, 2**25)),
    "turned": ("", lambda: png(MOST, MOST, 8, RGBA, before=[chunk(b"eXIf", exif(100, 6))])),
    "CMYK": ("", lambda: jpeg(Image.new("CMYK", (MOST, MOST)))),
    "24 scans": ("", lambda: jpeg(Image.new("RGB", (MOST, MOST)), scans=24)),
    "3,000 scans": ("more than 24 scans", lambda: jpeg(picture(), scans=3_000)),
    "3,000 scans of many pixels": (
        "more than 24 scans",
        lambda: jpeg(Image.new("RGB", (4_000, 4_000)), scans=3_000),
    ),
    "segments": (
        "more than 32,768 parts",
        lambda: jpeg(picture(), segment(0xFE, b"") * 100_000),
    ),
    "chunks": ("more than 32,768 parts", lambda: png(9, 9, before=[chunk(b"abCd", b"")] * 10**5)),
    "two heads": (
        "no head, or several",
        lambda: png(9, 9, before=[chunk(b"IHDR", struct.pack(">IIBBBBB", HUGE, 9, 8, 2, 0, 0, 0))]),
    ),
    "EXIF of a JPEG": (
        "EXIF data claims more",
        lambda: jpeg(picture(), segment(0xE1, b"Exif\0\0" + exif(65_000))),
    ),
    "EXIF of a PNG": ("", lambda: png(9, 9, before=[chunk(b"eXIf", exif(10**6, 6))])),
    "EXIF in a profile": (
        "",
        lambda: png(
            *(9, 9),
            before=[
                chunk(
                    b"zTXt",
                    PROFILE + zlib.compress(f"\n\n\n{exif(4 * 10**5, 6).hex()}".encode(), 9),
                )
            ],
        ),
    ),
    "compressed text": (PILLOWS, lambda: png(9, 9, before=[text(b"zTXt", 10**9)] * 3)),
    "a compressed profile": (PILLOWS, lambda: png(9, 9, before=[text(b"iCCP", 10**9)])),
}
