"""Image files in all their variety, and the conversion of pixel values."""

import errno
import io
import os
import struct
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
from pivq_jax.data.images import (
    images_to_float,
    images_to_uint8,
    load_image,
    unread_kinds,
)
from tests.explore.crafted_pictures import CRAFTED
from tests.explore.image_files import claimed_png
from tests.memory import peak_memory

EXIF = {"eXIf": "EXIF of a PNG", "profile": "EXIF in a profile"}
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def decode(content):
    return images.decode_image(io.BytesIO(content), 16, name="it")


def assert_color(image, color, tolerance=0):
    assert image.dtype == np.uint8
    expected = np.broadcast_to(np.array(color, np.uint8), image.shape)
    np.testing.assert_allclose(image.astype(int), expected.astype(int), atol=tolerance)


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_pixel_values_round_trip_exactly(convert):
    images = convert(np.arange(256, dtype=np.uint8))
    floats = images_to_float(images)
    assert floats.dtype == np.float32
    assert float(floats[0]) == -1.0
    assert float(floats[255]) == 1.0
    back = images_to_uint8(floats)
    assert back.dtype == np.uint8
    assert type(back) is type(images)
    np.testing.assert_array_equal(back, images)


@given(st.floats(-10, 10, width=32))
def test_pixels_are_rounded_and_clipped(value):
    pixel = int(images_to_uint8(np.array([value], np.float32))[0])
    assert abs(pixel - min(max((value + 1) * 127.5, 0), 255)) <= 0.5 + 1e-4


def test_conversions_run_under_jit_and_in_bfloat16():
    images = jnp.array([[0, 127, 255]], jnp.uint8)
    np.testing.assert_array_equal(
        jax.jit(lambda x: images_to_uint8(images_to_float(x)))(images), images
    )
    ends = jnp.array([-1.0, 1.0], jnp.bfloat16)
    np.testing.assert_array_equal(images_to_uint8(ends), [0, 255])


@pytest.mark.parametrize(
    ("name", "mode", "color", "expected"),
    [
        ("a.png", "RGB", RED, RED),
        ("a.bmp", "RGB", RED, RED),
        ("a.webp", "RGB", (200, 200, 200), (200, 200, 200)),
        ("a.jpg", "L", 90, (90, 90, 90)),
        ("a.png", "L", 90, (90, 90, 90)),
        ("a.png", "1", 1, WHITE),
        ("a.png", "LA", (0, 0), WHITE),
        ("a.png", "RGBA", (255, 0, 0, 0), WHITE),
        ("a.png", "RGBA", (255, 0, 0, 51), (255, 204, 204)),
        ("a.jpg", "CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("a.tif", "CMYK", (0, 255, 255, 0), RED),
        ("a.png", "I;16", 257 * 90, (90, 90, 90)),
        ("a.png", "I;16", 200, (0, 0, 0)),
        ("a.tif", "F", 0.5, (127, 127, 127)),
        ("a.tif", "F", 90.0, (90, 90, 90)),
        ("a.gif", "P", 0, (0, 0, 0)),
    ],
)
def test_any_mode_becomes_rgb_on_white(tmp_path, name, mode, color, expected):
    path = save(tmp_path / name, Image.new(mode, (20, 30), color))
    image = load_image(path, 16)
    assert image.shape == (16, 16, 3)
    assert_color(image, expected, tolerance=2)


def test_palette_transparency_is_white(tmp_path):
    image = Image.new("P", (16, 16), 0)
    image.putpalette([*RED, *BLUE])
    path = save(tmp_path / "a.png", image, transparency=0)
    assert_color(load_image(path, 16), WHITE)


@pytest.mark.parametrize("wide", [True, False])
def test_the_longer_side_is_cropped_centrally(tmp_path, wide):
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, :20], pixels[:, 20:40], pixels[:, 40:] = BLUE, RED, BLUE
    pixels = pixels if wide else pixels.transpose(1, 0, 2)
    path = save(tmp_path / "a.png", Image.fromarray(pixels))
    assert_color(load_image(path, 20), RED)


def test_shrinking_is_antialiased(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    path = save(tmp_path / "a.png", Image.fromarray(stripes))
    assert_color(load_image(path, 8)[:, 1:-1], (127, 127, 127), tolerance=6)


def test_a_single_pixel_is_enlarged(tmp_path):
    path = save(tmp_path / "a.png", Image.new("RGB", (1, 1), RED))
    assert_color(load_image(path, 16), RED)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tif"])
def test_every_orientation_is_that_of_pillow(tmp_path, orientation, kind):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 12, 3), np.uint8))
    data = Image.Exif()
    data.endian, data[0x0112] = "<>"[orientation // 2 % 2], orientation
    path = save(tmp_path / f"a.{kind}", image, exif=data)
    whole = images.decode_whole(path, name="a")
    np.testing.assert_array_equal(whole, ImageOps.exif_transpose(Image.open(path)))
    assert whole.shape == ((12, 7, 3) if 5 <= orientation <= 8 else (7, 12, 3))


@pytest.mark.parametrize("kind", ["eXIf", "profile"])
def test_exif_data_that_claims_gigabytes_takes_none(kind):
    start = peak_memory(reset=True)
    assert decode(CRAFTED[EXIF[kind]][1]()).shape == (16, 16, 3)
    assert peak_memory() - start < 2**26


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


def test_an_odd_tag_beside_the_orientation_does_not_matter(tmp_path):
    pixels = np.full((16, 16, 3), 255, np.uint8)
    pixels[:, :8] = 0  # dark on the left
    turned = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)  # to the right
    resolution = struct.pack(">HHII", 0x011A, 2, 7, 38)  # text where a number must be
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + turned + resolution + b"\0\0\0\x0072 dpi\0"
    path = save(tmp_path / "a.png", Image.fromarray(pixels), exif=exif)
    assert_color(load_image(path, 16)[:8], (0, 0, 0))
    path = save(tmp_path / "b.png", Image.fromarray(pixels), exif=b"no tags at all")
    assert_color(load_image(path, 16)[:, :8], (0, 0, 0))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_storage_that_fails_is_no_damage(tmp_path, monkeypatch, number):
    path = save(tmp_path / "a.png", Image.new("RGB", (16, 16), RED))

    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(images, "open", fail, raising=False)
    with pytest.raises(OSError, match=os.strerror(number)):
        load_image(path, 16)


def test_a_missing_file_is_no_damage(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        load_image(tmp_path / "a.png", 16)


@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "truncated"])
def test_a_corrupt_file_is_named_in_one_line(tmp_path, content):
    path = tmp_path / "bad.png"
    if content is None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        save(path, Image.fromarray(noise))
        content = path.read_bytes()[:4000]
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read image .*bad\.png: ") as caught:
        load_image(path, 16)
    assert "\n" not in str(caught.value)


def test_the_size_is_checked_before_an_image_is_decoded(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(claimed_png(20_000, 20_000))
    with pytest.raises(InputError, match=r"a\.png: Image size \(400000000 pixels\) exceeds limit"):
        load_image(path, 16)


def test_a_large_image_that_is_read_gives_no_warning_of_pillow(tmp_path):
    """Refused by its shape, after the header: its pixels would take half a gigabyte."""
    path = tmp_path / "a.png"
    path.write_bytes(claimed_png(12_000, 12_000))
    images.pillow.cache_clear()  # pytest gives each test filters of its own
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(images.ShapeError, match="is 12000 x 12000 pixels, not 1 x 1"):
            images.decode_image(path, 8, name="a.png", shape=(1, 1))


def test_an_rgb_image_is_decoded_without_a_copy(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", Image.new("RGB", (20, 20), RED))
    wide = save(tmp_path / "b.png", Image.new("RGB", (40, 20), RED))
    for copying in ("convert", "copy", "crop"):
        monkeypatch.delattr(Image.Image, copying)
    assert_color(load_image(path, 16), RED)
    assert_color(images.decode_whole(wide, name="b.png"), RED)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_a_float_image_with_a_pixel_that_is_not_finite_is_refused(tmp_path, odd):
    pixels = np.full((8, 8), 90, np.float32)
    pixels[3, 4] = odd
    path = save(tmp_path / "a.tif", Image.fromarray(pixels))
    with pytest.raises(InputError, match=r"a\.tif: it has pixels that are NaN or infinite"):
        load_image(path, 8)


@pytest.mark.parametrize("name, form", [("a.jfif", "JPEG"), ("a.jpe", "JPEG"), ("a.avif", "AVIF")])
def test_what_pillow_reads_is_read(tmp_path, name, form):
    if form not in images.FORMATS:
        pytest.skip("this Pillow has no AVIF")
    path = save(tmp_path / name, Image.new("RGB", (16, 16), RED), format=form)
    assert images.is_image(name)
    assert_color(load_image(path, 8), RED, tolerance=3)


@pytest.mark.parametrize("form", ["EPS", "ICO", "TGA"])
def test_other_formats_are_not_decoded_under_a_usual_name(tmp_path, form):
    path = save(tmp_path / "a.png", Image.new("RGB", (16, 16), RED), format=form)
    with pytest.raises(InputError, match="not an image of a known format"):
        load_image(path, 8)


def test_images_without_a_reader_are_counted(monkeypatch):
    monkeypatch.setattr(images, "_UNREAD", frozenset((".heic", ".jxl")))
    names = ["a.heic", "b/c.HEIC", "d.jxl", "e.png", "f.txt", ".g.heic", "heic", "h/.heic"]
    expected = "2 .heic, 1 .jxl are not read (.heic: pip install pillow-heif)"
    assert unread_kinds(names) == expected
    assert unread_kinds(["d.jxl"]) == "1 .jxl are not read" and unread_kinds(["e.png"]) == ""


def test_images_that_are_read_are_not_among_the_unread():
    assert images._UNREAD.isdisjoint(images.EXTENSIONS) and ".jxl" in images._UNREAD
