"""Whether codes have a place: figures with known answers, and all of them on a tiny model."""

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


def test_a_tiny_model(tiny_config):
    """Codes that are not nearest are counted against a loop with the codes that encoding gives."""
    data = load_dataset("random", image_size=16).first(60)
    model = make_model(tiny_config, scale=0.25)
    images = images_to_float(pixels_of(data.train)[:8])
    # Entries are latents of images, of half of the queries alone: the others compete for them.
    latents = model.encode_with_latents(images)[1]
    model.params["quantizer"]["codebook"] = latents[:, :4].reshape(32, -1)
    figures, picture = place_free.measure(model, data, 6)
    changed, matching = figures["change"], figures["matching"]
    assert changed["exchanges"] <= 6 * place_free.CODES
    assert 1 / 64 <= changed["participation"] <= 1 and changed["mean_change"] > 0
    assert figures["order"]["bit_equal"]
    assert figures["order"]["largest_difference_unsorted"] < 1e-4
    told = {name: value for name, value in figures["entries"].items() if name != "entries"}
    assert all(0 <= value <= 1 for value in (*told.values(), *matching.values()))
    assert picture.dtype == np.uint8 and picture.shape[2] == 3

    codebook, conflicted = np.asarray(model.codebook, np.float64), []
    tests = images_to_float(pixels_of(data.test))
    for codes, latents in zip(*model.encode_with_latents(tests), strict=True):
        apart = np.square(np.asarray(latents, np.float64)[:, None] - codebook).sum(-1)
        conflicted.append(sorted(apart.argmin(1)) != np.asarray(codes).tolist())
    assert matching["images_with_such_codes"] == pytest.approx(np.mean(conflicted))
    assert np.mean(conflicted) > 0
