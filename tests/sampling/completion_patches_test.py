"""Hidden patches of models with codes for each patch: of the most similar parent, or drawn."""

import jax.numpy as jnp
import numpy as np

from pivq_jax.model.quantizer import place_vectors
from pivq_jax.sampling import CodeSpace
from pivq_jax.sampling.completion import complete_patches

SIDE, STAGES, EACH, D = 4, 2, 4, 8
N, K = SIDE**2 * STAGES, SIDE**2 * STAGES * EACH
SPACE = CodeSpace(N, K, places=SIDE**2)
PLACE = np.tile(np.repeat(np.arange(SIDE**2), EACH), STAGES)
CODEBOOK = np.random.default_rng(0).normal(size=(K, 2 * D)).astype(np.float32)
CODEBOOK[:, :D] = place_vectors(SIDE**2, D)[PLACE]


def test_hidden_patches_are_those_of_the_parent_whose_visible_ones_are_most_alike():
    rng = np.random.default_rng(1)
    parents = np.sort(np.arange(0, K, EACH) + rng.integers(0, EACH, (6, N)), 1).astype(np.int32)
    visible = np.ones((2, 32, 32, 1), np.float32)
    visible[0, :, :16] = 0  # the left half
    visible[1, 8:16, 8:11] = 0  # a third of a patch, which counts as visible
    codes = parents[[2, 4]].copy()
    hidden = np.isin(PLACE[codes[0]], [place for place in range(16) if place % 4 < 2])
    # Other codes of the same places where the image is hidden, one code where it is visible.
    codes[0] = np.where(hidden, codes[0] // EACH * EACH + (codes[0] + 1) % EACH, codes[0])
    last = np.flatnonzero(~hidden)[0]
    codes[0, last] = codes[0, last] // EACH * EACH + (codes[0, last] + 1) % EACH
    given = jnp.asarray(codes), jnp.asarray(visible)
    found = complete_patches(SPACE, jnp.asarray(CODEBOOK), parents, None, *given)
    for place in range(SIDE**2):
        of_first = {int(code) for code in found[0] if PLACE[code] == place}
        source = parents[2] if place % 4 < 2 else codes[0]
        assert of_first == {int(code) for code in source if PLACE[code] == place}
    assert set(found[1].tolist()) == set(codes[1].tolist())
