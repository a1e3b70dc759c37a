"""The README's animation shows the steps of an interpolation."""

import io

import numpy as np
from PIL import Image

import pivq_jax
from benchmarks.animation import RESTED, SHOWN, frames, webp
from pivq_jax.common.pictures import grid
from pivq_jax.data import images_to_uint8


def test_frames_go_from_stop_to_stop_and_are_kept_by_the_file():
    model = pivq_jax.from_pretrained("toon_faces")
    codes = np.asarray(model.parents)[:4].reshape(2, 2, -1)
    pictures, times = frames(model, codes, 3)

    for picture, stop in ((pictures[0], codes[0]), (pictures[2], codes[1])):
        np.testing.assert_array_equal(picture, grid(images_to_uint8(model.decode(stop)), 2))
    assert times == [RESTED, SHOWN] * 2
    between = model.interpolate(codes[1], codes[0], 3)[1]  # the way back
    np.testing.assert_array_equal(pictures[3], grid(images_to_uint8(model.decode(between)), 2))

    with Image.open(io.BytesIO(webp(pictures, times))) as file:
        assert file.n_frames == 4
        for number, picture in enumerate(pictures):
            file.seek(number)
            np.testing.assert_array_equal(np.asarray(file.convert("RGB")), picture)
