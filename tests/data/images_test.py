"""Image files in all their variety, and the conversion of pixel values."""

import errno
import io
import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pivq_jax.common.errors import InputError
from pivq_jax.data import images
from pivq_jax.data.images import images_to_float, images_to_uint8, load_image, unread_kinds
from tests.explore.crafted_pictures import CRAFTED
from tests.explore.image_files import claimed_png
from tests.memory import peak_memory

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def assert_color(image, color, tolerance=0):
    assert image.dtype == np.uint8
    expected = np.broadcast_to(np.array(color, np.uint8), image.shape)
    np.testing.assert_allclose(image.astype(int), expected.astype(int), atol=tolerance)


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_pixel_values_round_trip_exactly(convert):
    images = convert(np.arange(256, dtype=np.uint8))
    floats = images_to_float(images)
    assert floats.dtype == np.float32 and float(floats[0]) == -1.0 and float(floats[255]) == 1.0
    back = images_to_uint8(floats)
    assert back.dtype == np.uint8 and type(back) is type(images)
    np.testing.assert_array_equal(back, images)
    ends = jnp.array([-1.0, 1.0], jnp.bfloat16)
    np.testing.assert_array_equal(jax.jit(images_to_uint8)(ends), [0, 255])


@given(st.floats(-10, 10, width=32))
def test_pixels_are_rounded_and_clipped(value):
    pixel = int(images_to_uint8(np.array([value], np.float32))[0])
    assert abs(pixel - min(max((value + 1) * 127.5, 0), 255)) <= 0.5 + 1e-4


@pytest.mark.parametrize(
    ("name", "mode", "color", "expected"),
    [
        ("a.bmp", "RGB", RED, RED),
        ("a.jpg", "L", 90, (90, 90, 90)),
        ("a.png", "1", 1, WHITE),
        ("a.png", "LA", (0, 0), WHITE),
        ("a.png", "RGBA", (255, 0, 0, 51), (255, 204, 204)),
        ("a.jpg", "CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("a.png", "I;16", 257 * 90, (90, 90, 90)),
        ("a.tif", "F", 0.5, (127, 127, 127)),
        ("a.tif", "F", 90.0, (90, 90, 90)),
        ("a.gif", "P", 0, (0, 0, 0)),
    ],
)
def test_any_mode_becomes_rgb_on_white(tmp_path, name, mode, color, expected):
    Image.new(mode, (20, 30), color).save(tmp_path / name)
    image = load_image(tmp_path / name, 16)
    assert image.shape == (16, 16, 3)
    assert_color(image, expected, tolerance=2)


def test_palette_transparency_is_white(tmp_path):
    image = Image.new("P", (16, 16), 0)
    image.putpalette([*RED, *BLUE])
    image.save(tmp_path / "a.png", transparency=0)
    assert_color(load_image(tmp_path / "a.png", 16), WHITE)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
@pytest.mark.parametrize("transparent", [False, True])
def test_strips_are_converted_as_the_whole_is(mode, transparent, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 4), np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    if mode in ("I;16", "I", "F"):
        values = pixels[..., 0].astype(np.float32) * (0.9 if mode == "F" else 200)
        image = Image.fromarray(values.astype({"I;16": np.uint16, "I": np.int32}.get(mode, "f4")))
    elif mode != "RGBA":
        image = (image.convert("L") if mode == "LA" else image.convert("RGB")).convert(mode)
    if transparent and mode in ("1", "L", "P", "RGB"):
        image.info["transparency"] = image.getpixel((3, 4))
    whole = np.asarray(images._to_rgb(image))
    for pixels_at_once in (1, 100, 1_199):
        monkeypatch.setattr(images, "_STRIP", pixels_at_once)
        np.testing.assert_array_equal(np.asarray(images._to_rgb(image)), whole)
    assert whole.shape == (40, 30, 3) and whole.std() > 10


@pytest.mark.parametrize("wide", [True, False])
def test_the_longer_side_is_cropped_centrally(tmp_path, wide):
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, :20], pixels[:, 20:40], pixels[:, 40:] = BLUE, RED, BLUE
    Image.fromarray(pixels if wide else pixels.transpose(1, 0, 2)).save(tmp_path / "a.png")
    assert_color(load_image(tmp_path / "a.png", 20), RED)


def test_shrinking_is_antialiased(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    assert_color(load_image(tmp_path / "a.png", 8)[:, 1:-1], (127, 127, 127), tolerance=6)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
def test_every_orientation_is_that_of_pillow(tmp_path, orientation, kind):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 12, 3), np.uint8))
    data = Image.Exif()
    data.endian, data[0x0112] = "<>"[orientation // 2 % 2], orientation
    image.save(tmp_path / f"a.{kind}", exif=data)
    whole = images.decode_whole(tmp_path / f"a.{kind}", name="a")
    np.testing.assert_array_equal(
        whole, ImageOps.exif_transpose(Image.open(tmp_path / f"a.{kind}"))
    )
    assert whole.shape == ((12, 7, 3) if 5 <= orientation <= 8 else (7, 12, 3))


@pytest.mark.parametrize("kind", ["EXIF of a PNG", "EXIF in a profile"])
def test_exif_data_that_claims_gigabytes_takes_none(kind):
    start = peak_memory(reset=True)
    file = io.BytesIO(CRAFTED[kind][1]())
    assert images.decode_image(file, 16, name="it").shape == (16, 16, 3)
    assert peak_memory() - start < 2**26


def test_a_large_image_that_is_read_gives_no_warning_of_pillow():
    """Refused by its shape, after the header: its pixels would take half a gigabyte."""
    file = io.BytesIO(claimed_png(12_000, 12_000))
    images.pillow.cache_clear()  # pytest gives each test filters of its own
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(images.ShapeError, match="is 12000 x 12000 pixels, not 1 x 1"):
            images.decode_image(file, 8, name="a.png", shape=(1, 1))


def test_a_missing_file_and_storage_that_fails_are_no_damage(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        load_image(tmp_path / "a.png", 16)

    def fail(*arguments, **options):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "open", fail, raising=False)
    with pytest.raises(OSError, match="Input/output error"):
        load_image(tmp_path / "a.png", 16)


def content_of(image, **options):
    image.save(file := io.BytesIO(), **options)
    return file.getvalue()


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
NOT_FINITE = Image.fromarray(np.array([[90, np.nan], [np.inf, 1]], np.float32))


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"no image", "not an image of a known format"),
        (content_of(NOISE, format="PNG")[:4000], "image file is truncated"),
        (content_of(NOISE, format="EPS"), "not an image of a known format"),
        (claimed_png(20_000, 20_000), r"Image size \(400000000 pixels\) exceeds limit"),
        (content_of(NOT_FINITE, format="TIFF"), "it has pixels that are NaN or infinite"),
    ],
    ids=["text", "truncated", "EPS", "huge", "NaN"],
)
def test_what_cannot_be_read_is_named_in_one_line(tmp_path, content, reason):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(InputError, match=rf"cannot read image .*bad\.png: {reason}") as caught:
        load_image(tmp_path / "bad.png", 16)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name, form", [("a.jfif", "JPEG"), ("a.avif", "AVIF")])
def test_what_pillow_reads_is_read(tmp_path, name, form):
    if form not in images.FORMATS:
        pytest.skip("this Pillow has no AVIF")
    Image.new("RGB", (16, 16), RED).save(tmp_path / name, format=form)
    assert images.is_image(name)
    assert_color(load_image(tmp_path / name, 8), RED, tolerance=3)


def test_images_without_a_reader_are_counted(monkeypatch):
    assert images._UNREAD.isdisjoint(images.EXTENSIONS) and ".jxl" in images._UNREAD
    monkeypatch.setattr(images, "_UNREAD", frozenset((".heic", ".jxl")))
    names = ["a.heic", "b/c.HEIC", "d.jxl", "e.png", "f.txt", ".g.heic", "heic", "h/.heic"]
    expected = "2 .heic, 1 .jxl are not read (.heic: pip install pillow-heif)"
    assert unread_kinds(names) == expected
    assert unread_kinds(["d.jxl"]) == "1 .jxl are not read" and unread_kinds(["e.png"]) == ""
