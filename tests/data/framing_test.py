"""Where the eyes come to, what fills the rest, and that shrinking shows no patterns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pivq_jax.data import framing

SIZE = 96
PRESETS = st.sampled_from(sorted(framing.PRESETS))


def drawn(eyes, shape, radius):
    """A grey photograph with a red disc for the left eye and a green one for the right."""
    fine = 4
    image = Image.new("RGB", (shape[1] * fine, shape[0] * fine), (90, 90, 90))
    for (x, y), colour in zip(eyes, [(250, 90, 90), (90, 250, 90)]):
        box = [fine * (c + d) for d in (-radius, radius) for c in (x, y)]
        ImageDraw.Draw(image).ellipse(box, fill=colour)
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BOX))


def centre(image, channel):
    """(x, y) of the disc that is bright in a channel."""
    weights = np.clip(image[..., channel].astype(float) - image.min(-1) - 40, 0, None)
    y, x = (np.indices(weights.shape) + 0.5).reshape(2, -1)
    return np.array([x, y]) @ weights.ravel() / weights.sum()


@settings(max_examples=20)
@given(
    preset=PRESETS,
    angle=st.floats(-180, 180),
    scale=st.floats(0.6, 8.0),
    x=st.floats(0.3, 0.7),
    y=st.floats(0.3, 0.7),
    width=st.integers(300, 420),
    height=st.integers(300, 420),
)
def test_eyes_come_to_their_places(preset, angle, scale, x, y, width, height):
    """Within a pixel, whatever the turn, the scale and the place in the photograph."""
    distance = min(framing.eye_distance(SIZE, preset) * scale, 80)
    half = 0.5 * distance * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    middle = np.array([x * width, y * height])
    eyes = np.array([middle - half, middle + half])
    photograph = drawn(eyes, (height, width), max(2.0, 0.12 * distance))
    aligned = framing.align(photograph, eyes, SIZE, preset)
    assert aligned.shape == (SIZE, SIZE, 3) and aligned.dtype == np.uint8
    # Of a disc more than half of that distance from the edges, the reflection is outside of this.
    places = np.array(framing.PRESETS[preset]) * SIZE
    window = int(0.45 * framing.eye_distance(SIZE, preset))
    for (px, py), channel in zip(places, (0, 1)):
        left, top = int(px) - window, int(py) - window
        part = aligned[top : top + 2 * window, left : left + 2 * window]
        found = np.add(centre(part, channel), [left, top])
        assert np.abs(found - [px, py]).max() < 1


@settings(max_examples=60)
@given(
    preset=PRESETS,
    points=st.lists(st.floats(-200, 200), min_size=4, max_size=4),
    size=st.integers(8, 512),
)
def test_the_transform_is_a_similarity_through_both_eyes(preset, points, size):
    eyes = np.array(points).reshape(2, 2)
    if np.linalg.norm(eyes[1] - eyes[0]) < 1e-3:
        return
    matrix = framing.similarity(eyes, size, preset)
    places = np.array(framing.PRESETS[preset]) * size
    found = np.hstack([places, np.ones((2, 1))]) @ matrix.T
    np.testing.assert_allclose(found, eyes, atol=1e-9)
    linear = matrix[:, :2]
    scale = np.linalg.norm(eyes[1] - eyes[0]) / framing.eye_distance(size, preset)
    np.testing.assert_allclose(linear @ linear.T, scale**2 * np.eye(2), atol=1e-9 * scale**2)
    assert np.linalg.det(linear) > 0  # not mirrored


def test_what_is_outside_is_the_reflection_of_numpy():
    image = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    rows, columns = (framing._reflected(np.arange(-13, n + 17), n) for n in (5, 4))
    expected = np.pad(image, ((13, 17), (13, 17), (0, 0)), "symmetric")
    np.testing.assert_array_equal(image[rows[:, None], columns], expected)
    # No black beside a light photograph, however often it must be repeated.
    photograph = np.random.default_rng(0).integers(150, 250, (50, 60, 3), np.uint8)
    aligned = framing.align(photograph, np.array([[-20.0, 50], [20, 50]]), SIZE, "face")
    assert aligned.min() > 100  # bicubic and Lanczos filters overshoot a little
    assert aligned.std() > 5


def test_an_upright_square_is_its_resized_crop():
    """Where nothing is turned, Pillow's own resizing is the reference."""
    rng = np.random.default_rng(1)
    smooth = Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8))
    photograph = np.asarray(smooth.resize((400, 400), Image.Resampling.BICUBIC))
    left, top, side = 70, 50, 256
    eyes = np.array(framing.PRESETS["face"]) * side + [left, top]
    aligned = framing.align(photograph, eyes, 64, "face")
    crop = Image.fromarray(photograph[top : top + side, left : left + side])
    expected = np.asarray(crop.resize((64, 64), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(aligned - expected).mean() < 1.5


@pytest.mark.parametrize("angle", [0, 7])
def test_shrinking_shows_no_pattern(angle):
    """Stripes that are finer than a pixel become their mean."""
    photograph = np.zeros((900, 900, 3), np.uint8)
    photograph[:, ::2] = 255
    half = 100 * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    eyes = np.array([450 - half, 450 + half])
    aligned = framing.align(photograph, eyes, 32, "face")
    assert np.abs(aligned.astype(int) - 127.5).max() < 4
