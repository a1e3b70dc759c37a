"""Whether codes have a place: figures with known answers, and all of them on a tiny model."""

import math

import numpy as np
import pytest

from benchmarks import place_free
from benchmarks.common import pixels_of
from pivq_jax.data import images_to_float, load_dataset
from tests.parameters import make_model


def test_a_local_change_has_a_64th_and_a_global_one_1():
    before = np.zeros((4, 24, 32, 3))
    after = before.copy()
    after[0, 3:6, 8:12] = 0.5  # one patch of 3x4 pixels
    after[1] = -0.25
    after[2, :12] = 1.0  # half of the patches
    energies = place_free.patch_energies(before, after)
    assert np.flatnonzero(energies[0]).tolist() == [8 + 2]
    np.testing.assert_allclose(energies.sum(1), np.square(after).sum((1, 2, 3)))
    shares = place_free.participation(energies)
    np.testing.assert_allclose(shares, [1 / 64, 1, 1 / 2, np.nan])


def test_an_entry_is_told_from_the_pixels_that_show_it():
    rng = np.random.default_rng(0)
    held, held_test = rng.random(400) < 0.3, rng.random(300) < 0.3
    images, tests = rng.normal(0, 1, (400, 16, 16, 3)), rng.normal(0, 1, (300, 16, 16, 3))
    for x, shown in ((images, held), (tests, held_test)):
        x[shown, 4:6, 6:8] += 3  # the patch in the third row and the fourth column

    def accuracy(patch):
        seen = (place_free._pixels_in(x, patch) for x in (images, tests))
        return place_free._accuracy(*seen, held, held_test)

    assert accuracy(2 * 8 + 3) > 0.95
    assert abs(accuracy(0) - 0.5) < 0.1


@pytest.fixture(scope="module")
def data():
    return load_dataset("random", image_size=16).first(60)


@pytest.fixture(scope="module")
def model(tiny_config, data):
    """A tiny model with random weights, whose entries are latents of images, of half of the
    queries alone, so that the others compete for them.
    """
    made = make_model(tiny_config, scale=0.25)
    images = images_to_float(pixels_of(data.train)[:8])
    latents = made.encode_with_latents(images)[1]
    made.params["quantizer"]["codebook"] = latents[:, :4].reshape(32, -1)
    return made


@pytest.fixture(scope="module")
def measured(model, data):
    return place_free.measure(model, data, 6)


def test_a_tiny_model(measured):
    figures, picture = measured
    changed, matching = figures["change"], figures["matching"]
    assert changed["exchanges"] <= 6 * place_free.CODES
    assert 1 / 64 <= changed["participation"] <= 1 and changed["mean_change"] > 0
    assert figures["order"]["bit_equal"]
    assert figures["order"]["largest_difference_unsorted"] < 1e-4
    assert all(0 <= value <= 1 for value in matching.values())
    told = {name: value for name, value in figures["entries"].items() if name != "entries"}
    assert all(math.isfinite(value) and 0 <= value <= 1 for value in told.values())
    assert picture.dtype == np.uint8 and picture.shape[2] == 3


def test_codes_that_are_not_nearest_are_counted(measured, model, data):
    """Against a loop over images with the codes that encoding gives."""
    images, codebook = pixels_of(data.test), np.asarray(model.codebook, np.float64)
    conflicted = []
    for codes, latents in zip(*model.encode_with_latents(images_to_float(images)), strict=True):
        apart = np.square(np.asarray(latents, np.float64)[:, None] - codebook).sum(-1)
        conflicted.append(sorted(apart.argmin(1)) != np.asarray(codes).tolist())
    expected = np.mean(conflicted)
    assert measured[0]["matching"]["images_with_such_codes"] == pytest.approx(expected)
    assert expected > 0
