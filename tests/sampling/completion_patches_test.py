"""Hidden patches of models with codes for each patch: of the most similar parent, or drawn."""

import jax.numpy as jnp
import numpy as np

from pivq_jax.sampling.completion import complete_patches
from tests.sampling.places_test import CODEBOOK, EACH, PLACE, PLACES, SPACE, images


def test_hidden_patches_are_those_of_the_parent_whose_visible_ones_are_most_alike():
    parents = images(6, seed=1)
    visible = np.ones((2, 32, 32, 1), np.float32)
    visible[0, :, :16] = 0  # the left half
    visible[1, 8:16, 8:11] = 0  # a third of a patch, which counts as visible
    codes = parents[[2, 4]].copy()
    hidden = np.isin(PLACE[codes[0]], [place for place in range(PLACES) if place % 4 < 2])
    # Other codes of the same places where the image is hidden, one code where it is visible.
    codes[0] = np.where(hidden, codes[0] // EACH * EACH + (codes[0] + 1) % EACH, codes[0])
    last = np.flatnonzero(~hidden)[0]
    codes[0, last] = codes[0, last] // EACH * EACH + (codes[0, last] + 1) % EACH
    given = jnp.asarray(codes), jnp.asarray(visible)
    found = complete_patches(SPACE, jnp.asarray(CODEBOOK), parents, None, *given)
    for place in range(PLACES):
        of_first = {int(code) for code in found[0] if PLACE[code] == place}
        source = parents[2] if place % 4 < 2 else codes[0]
        assert of_first == {int(code) for code in source if PLACE[code] == place}
    assert set(found[1].tolist()) == set(codes[1].tolist())
