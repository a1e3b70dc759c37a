"""docs/explorer/pixels.js beside Pillow and the functions of the package."""

import numpy as np
from PIL import Image

from pivq_jax.data.images import images_to_float, images_to_uint8
from pivq_jax.explore.pool import shrink
from tests.explore.node import run_js


def with_alpha(image: np.ndarray) -> np.ndarray:
    return np.concatenate([image, np.full_like(image[..., :1], 255)], -1)


def random_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_images_are_resized_to_the_bits_of_pillow(tmp_path):
    sizes = [(64, 64), (100, 64), (257, 16), (20, 64), (63, 64)]
    body = "answer(given.sizes.map(([side, size]) =>"
    body += " [...resize({ data: given[side], width: side, height: side }, size)]));"
    images = {str(side): with_alpha(random_image(side, side)) for side, _ in sizes}
    answers = run_js("pixels.js", "resize", body, tmp_path, sizes=sizes, **images)
    for (side, size), answer in zip(sizes, answers, strict=True):
        found = np.reshape(answer, (size, size, 4))
        image = Image.fromarray(random_image(side, side))
        expected = image.resize((size, size), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(found[..., :3], expected)
        assert (found[..., 3] == 255).all()


def test_images_are_shrunk_as_the_server_shrinks_them(tmp_path):
    sides = [16, 32, 48, 64, 128]
    body = "answer(given.sides.map((side) => [...shrink({ data: given[side], width: side })]));"
    images = {str(side): with_alpha(random_image(side, side)) for side in sides}
    answers = run_js("pixels.js", "shrink", body, tmp_path, sides=sides, **images)
    for side, answer in zip(sides, answers, strict=True):
        expected = np.asarray(shrink(random_image(side, side)[None])[0])
        found = np.reshape(answer, (*expected.shape[:2], 4))[..., :3]
        # A sum in float32 may lie on the other side of a half.
        assert np.abs(found - expected).max() <= 1 and (found != expected).mean() < 0.01


def test_pixels_become_floats_and_back(tmp_path):
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    body = "answer([...toFloat(given.data)]);"
    found = run_js("pixels.js", "toFloat", body, tmp_path, data=with_alpha(levels))
    np.testing.assert_array_equal(np.float32(found), images_to_float(levels).ravel())

    values = np.random.default_rng(1).normal(size=(10, 10, 3)).astype(np.float32)
    halves = (np.arange(300, dtype=np.float32).reshape(10, 10, 3) + 0.5) / np.float32(127.5) - 1
    body = "answer([[...toBytes(given.values)], [...toBytes(given.halves)]]);"
    answers = run_js("pixels.js", "toBytes", body, tmp_path, values=values, halves=halves)
    for floats, found in zip((values, halves), answers, strict=True):
        np.testing.assert_array_equal(
            np.reshape(found, (10, 10, 4)), with_alpha(images_to_uint8(floats))
        )
