"""Edits of models with several stages, beside a discriminant of scikit-learn."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from pivq_jax.sampling import Labels
from pivq_jax.sampling.edit import edit_places, place_table, read_places
from tests.sampling.places_test import CODEBOOK, EACH, PLACE, SPACE, images

FACTORS = {"mouth": ("closed", "open"), "light": ("left", "right", "none"), "hat": ("no", "yes")}
SHOWN = {0: [9, 10], 1: [3]}  # places of the first two factors


def labelled(count, seed):
    """Images whose first entries at these places, of the first stage, say two factors."""
    codes, rng = images(count, seed), np.random.default_rng(seed)
    values = np.stack([rng.integers(0, 2, count), rng.integers(0, 3, count), np.zeros(count)], 1)
    for factor, places in SHOWN.items():
        for place in places:  # the first sorted codes are those of the first stage
            codes[:, place] = EACH * place + values[:, factor]
    return codes, Labels(values.astype(np.int32), FACTORS)


CODES, LABELS = labelled(400, 0)
TABLE = place_table(SPACE, jnp.asarray(CODEBOOK), CODES, LABELS)


def latents_of(codes):
    return np.asarray(SPACE.latents_of(jnp.asarray(codes), jnp.asarray(CODEBOOK)))


def read(codes):
    return np.asarray(read_places(SPACE, jnp.asarray(CODEBOOK), jnp.asarray(codes), TABLE))


def edit(codes, factor, value):
    return np.asarray(
        edit_places(SPACE, jnp.asarray(CODEBOOK), jnp.asarray(codes), factor, value, TABLE)
    )


def test_the_places_that_show_a_factor_are_found():
    for factor, places in SHOWN.items():
        for value in range(len(list(FACTORS.values())[factor])):
            shows = np.flatnonzero(TABLE.shows[factor, value])
            assert set(shows) <= set(places) and len(shows), (factor, value)
    assert not np.any(TABLE.shows[2])


def test_factors_are_read_as_by_a_shrunken_discriminant():
    codes, labels = labelled(300, 1)
    numbers, ours = latents_of(codes).reshape(300, -1), read(codes)
    for factor in (0, 1):
        theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
        theirs.fit(latents_of(CODES).reshape(400, -1), LABELS.values[:, factor])
        agree = theirs.predict(numbers) == ours[:, factor].argmax(-1)
        right = labels.values[:, factor] == ours[:, factor].argmax(-1)
        assert agree.mean() > 0.97 and right.mean() > 0.95
    np.testing.assert_allclose(ours.sum(-1), 1, rtol=1e-5)
    assert np.all(ours[:, 0, 2] == 0) and np.all(ours[:, 2, 0] == 1)  # values that there are not


@pytest.mark.parametrize("factor, value", [(0, 1), (1, 2)])
def test_the_places_come_from_the_image_that_is_most_alike_elsewhere(factor, value):
    codes, _ = labelled(30, 2)
    edited = edit(codes, factor, value)
    stays = read(codes)[:, factor].argmax(-1) == value
    np.testing.assert_array_equal(edited[stays], codes[stays])
    assert 0 < stays.sum() < len(codes)
    shows = np.asarray(TABLE.shows[factor, value])
    known, has = latents_of(CODES), LABELS.values[:, factor] == value
    for row, new in zip(codes[~stays], edited[~stays], strict=True):
        apart = ((known - latents_of(row[None])) ** 2).sum(-1)[:, ~shows].sum(1)
        donor = CODES[np.where(has, apart, np.inf).argmin()]
        expected = np.where(shows[PLACE[row]], donor, row)  # sorted codes are of the same places
        np.testing.assert_array_equal(new, np.sort(expected))
    assert np.all(read(edited)[:, factor].argmax(-1) == value)


def test_images_stay_if_no_labelled_one_has_the_value():
    codes, _ = labelled(5, 3)
    np.testing.assert_array_equal(edit(codes, 2, 1), codes)
