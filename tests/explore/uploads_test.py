"""Pictures that are sent: refused by what they hold, else decoded as those of a folder are."""

import numpy as np
import pytest
from PIL import Image

from pivq_jax.common.errors import InputError
from pivq_jax.data.images import load_image
from pivq_jax.explore import uploads
from pivq_jax.explore.uploads import read_image
from tests.explore.crafted_pictures import CRAFTED, PILLOWS, png
from tests.explore.image_files import content_of, picture

TURNED = Image.Exif()
TURNED[0x0112], TURNED[0x010E] = 6, "a description"
OTHER_FILES = [content_of(picture(), "GIF"), b"", b"text", b"<svg/>", b"RIFF\0\0\0\0WEBP"]
OTHER_FILES += [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]


@pytest.mark.parametrize("name", [n for n, (why, _) in CRAFTED.items() if why not in ("", PILLOWS)])
def test_what_costs_too_much_is_refused_before_it_is_decoded(name, monkeypatch):
    monkeypatch.setattr(uploads, "decode_image", None)
    word, make = CRAFTED[name]
    with pytest.raises(InputError, match=word):
        read_image(make(), 16)


@pytest.mark.parametrize("content", OTHER_FILES, ids=range(7))
def test_other_files_are_refused(content):
    with pytest.raises(InputError, match=r"(?i)webp"):
        read_image(content, 16)


@pytest.mark.parametrize(
    "mode, kind, options",
    [
        *((mode, "PNG", {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
        ("RGB", "PNG", {"exif": TURNED}),
        ("RGB", "JPEG", {"exif": TURNED}),
        ("RGB", "WEBP", {}),
        ("RGBA", "WEBP", {"lossless": True}),
        ("RGB", "WEBP", {"lossless": True, "exif": TURNED}),
    ],
)
def test_whole_pictures_are_read_as_in_a_folder_and_cut_ones_refused(tmp_path, mode, kind, options):
    image = picture(31, 20).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    content = content_of(image, kind, **options)
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(content)
    np.testing.assert_array_equal(read_image(content, 16), load_image(path, 16))
    with pytest.raises(InputError, match="cannot read"):
        read_image(content[: len(content) // 2], 16)


@pytest.mark.parametrize("size", [(1, 1), (5, 1), (13, 27)])
@pytest.mark.parametrize("depth, colour", [(1, 0), (16, 6)])
def test_interlaced_rows_are_counted_to_the_byte(size, depth, colour, monkeypatch):
    """Each pixel is given to its pass, and the rows of each pass are added up."""
    content = png(*size, depth, colour, interlaced=True)
    assert read_image(content, 16).shape == (16, 16, 3)
    needed = []

    def counted(parts: list[memoryview], most: int) -> int:
        needed.append(most)
        return most

    monkeypatch.setattr(uploads, "_inflated", counted)
    read_image(content, 16)
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
    rows, columns = np.indices(size[::-1])
    lengths, bits = 0, depth * {0: 1, 6: 4}[colour]
    for left, top, right, down in (*passes, (0, 1, 1, 2)):
        taken = (rows % down == top) & (columns % right == left)
        for row in taken[taken.any(1)]:
            lengths += 1 + -(-int(row.sum()) * bits // 8)
    assert needed == [lengths]


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (400, 300)])
def test_a_jpeg_of_a_single_colour_has_enough_data(mode, size):
    """It needs the least."""
    content = content_of(Image.new(mode, size), "JPEG", progressive=True, optimize=True, quality=5)
    assert read_image(content, 16).shape == (16, 16, 3)


def test_webp_is_refused_by_its_head(monkeypatch):
    def refused(content: bytes) -> str:
        with pytest.raises(InputError) as error:
            read_image(content, 16)
        return str(error.value)

    extended = bytearray(content_of(picture(), "WEBP", exif=TURNED))
    lossy, lossless = (content_of(picture(), "WEBP", lossless=each) for each in (False, True))
    film = content_of(picture(), "WEBP", save_all=True, append_images=[picture(30, 20).rotate(90)])
    monkeypatch.setattr(uploads, "decode_image", None)
    extended[24:30] = b"\xff\xff\0\xff\xff\0"  # the size of the canvas, less one
    assert "65536 x 65536 pixels" in refused(bytes(extended))
    monkeypatch.setattr(uploads, "MAX_PIXELS", 599)  # the picture has 600
    for content in (lossy, lossless):
        assert "30 x 20 pixels, more than 599" in refused(content)
        assert "no head" in refused(content[:20])
    assert "film" in refused(film)
