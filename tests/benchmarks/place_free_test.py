"""Whether codes have a place: figures with known answers, and all of them on a tiny model."""

import math

import numpy as np
import pytest

from benchmarks import place_free
from pivq_jax.inference.opening import data_of


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
def measured(tiny_model):
    return place_free.measure(tiny_model, data_of(tiny_model, ""), 6)


def test_a_tiny_model(measured, tiny_model):
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


def test_codes_that_are_not_nearest_are_counted(measured, tiny_model):
    """Against a loop over images with the codes that encoding gives."""
    test = data_of(tiny_model, "").test
    codebook = np.asarray(tiny_model.codebook, np.float64)
    conflicted = []
    for i in range(len(test)):
        image = test[i]["image"][None] / np.float32(127.5) - 1
        codes, latents = map(np.asarray, tiny_model.encode_with_latents(image))
        apart = np.square(latents[0][:, None].astype(np.float64) - codebook).sum(-1)
        conflicted.append(sorted(apart.argmin(1)) != codes[0].tolist())
    expected = np.mean(conflicted)
    assert measured[0]["matching"]["images_with_such_codes"] == pytest.approx(expected)
    assert expected > 0
