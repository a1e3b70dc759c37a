"""Image files in all their variety, and the conversion of pixel values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pivq_jax.common.errors import InputError
from pivq_jax.data.images import images_to_float, images_to_uint8, load_image

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


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


def test_exif_orientation_is_applied(tmp_path):
    pixels = np.full((16, 16, 3), 255, np.uint8)
    pixels[:8] = 0  # dark above
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    path = save(tmp_path / "a.png", Image.fromarray(pixels), exif=exif)
    image = load_image(path, 16)
    assert_color(image[:8], WHITE)
    assert_color(image[8:], (0, 0, 0))


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
