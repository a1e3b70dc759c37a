"""Completion: the true set is found where it can be, by the pixels and by the prior."""

import functools
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pivq_jax.sampling import CodeSpace, Prior, SetPrior, completion

# A made-up decoder: the image is the sum of one pattern per code.
K, N, D, SIZE = 20, 3, 5, 8
SPACE = CodeSpace(N, K)
RNG = np.random.default_rng(0)
CODEBOOK = jnp.float32(RNG.normal(size=(K, D)))
PATTERNS = jnp.float32(RNG.normal(size=(D, SIZE * SIZE * 3)) / 12)
fit_visible = functools.partial(completion.fit_visible, SPACE, CODEBOOK)


def decode(vectors: jax.Array) -> jax.Array:
    return (vectors.sum(1) @ PATTERNS).reshape(-1, SIZE, SIZE, 3)


def sets(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.sort(np.stack([rng.choice(K, N, replace=False) for _ in range(count)])).astype(
        np.int32
    )


def energy(codes, images, visible) -> np.ndarray:
    decoded = decode(CODEBOOK[codes]).clip(-1, 1)
    return np.asarray(completion.visible_error(decoded, images, visible))


@pytest.mark.parametrize("hidden", [0, 7])
def test_no_replacement_of_one_code_fits_better(hidden, monkeypatch):
    monkeypatch.setattr(completion, "SINGLE", N * K)  # the search sees them all
    truth, start = sets(20, seed=1), sets(20, seed=2)
    images = decode(CODEBOOK[truth]).clip(-1, 1)
    visible = jnp.ones((20, SIZE, SIZE, 1)).at[:, :hidden].set(0)
    garbage = jnp.where(visible > 0, images, jnp.nan)  # is not read
    found = np.asarray(fit_visible(decode, start, garbage, visible))
    assert found.dtype == np.int32 and (np.diff(found) > 0).all()
    reached = energy(found, images, visible)
    assert np.mean(reached) < np.mean(energy(start, images, visible)) / 2
    for place in range(N):
        for entry in range(K):
            other = found.copy()
            other[:, place] = entry
            valid = (found != entry).all(1)
            least = 2 * completion.VARIANCE * completion.LEAST_GAIN
            worse = energy(other, images, visible) > reached - least - 1e-5
            assert worse[valid].all()


def test_multisets_may_repeat_codes_and_have_more_of_them_than_entries():
    truth = np.sort(np.random.default_rng(1).integers(0, 2, (10, N))).astype(np.int32)
    images, visible = (truth.mean(1) * 0.8)[:, None, None, None], jnp.ones((10, SIZE, SIZE, 1))

    def grey(vectors: jax.Array) -> jax.Array:
        return jnp.broadcast_to(
            vectors.mean((1, 2))[:, None, None, None] * 0.8, (10, SIZE, SIZE, 3)
        )

    space, codebook = CodeSpace(N, 2, "nearest"), jnp.float32([[0.0], [1.0]])
    how = np.zeros_like(truth), jnp.asarray(images, jnp.float32), visible
    found = completion.fit_visible(space, codebook, grey, *how)
    np.testing.assert_array_equal(found, truth)


def test_no_step_is_worse_and_the_last_one_changes_nothing(monkeypatch):
    truth, codes = sets(20, seed=3), sets(20, seed=4)
    images, visible = decode(CODEBOOK[truth]).clip(-1, 1), jnp.ones((20, SIZE, SIZE, 1))

    def fit(codes: np.ndarray) -> jax.Array:
        return fit_visible(decode, codes, images, visible)

    end = np.asarray(fit(codes))
    monkeypatch.setattr(completion, "MOST_STEPS", 1)
    fit_once = jax.jit(fit)
    last = energy(codes, images, visible)
    for _ in range(10):
        new = np.asarray(fit_once(codes))
        now, changed = energy(new, images, visible), (new != codes).any(1)
        assert (now[changed] < last[changed]).all()
        codes, last = new, now
    np.testing.assert_array_equal(fit_once(end), end)


@pytest.mark.slow
def test_the_prior_decides_what_pixels_do_not():
    network = SetPrior(K, width=8, depth=1, heads=1)
    codes = jnp.zeros((1, N), jnp.int32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), codes, codes > 0)["params"]
    params = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)
    # Whatever is known, codes below 5 are likely and all others are not.
    bias = jnp.where(jnp.arange(K) < 5, 0.0, -8.0)
    kernel = jnp.zeros_like(params["logits"]["kernel"])
    prior = Prior(network, {**params, "logits": {"kernel": kernel, "bias": bias}}, 0.0)
    images, visible = jnp.zeros((8, SIZE, SIZE, 3)), jnp.zeros((8, SIZE, SIZE, 1))
    found = np.asarray(fit_visible(decode, sets(8, 5), images, visible, prior))
    assert (found < 5).all() and (np.diff(found) > 0).all()
    # Pixels that are seen outweigh it.
    truth = np.tile(np.int32([7, 11, 19]), (8, 1))
    images, visible = decode(CODEBOOK[truth]), jnp.ones((8, SIZE, SIZE, 1))
    images = images * 20 / jnp.abs(images).max()

    def bright(vectors: jax.Array) -> jax.Array:
        return decode(vectors) * 20 / jnp.abs(decode(CODEBOOK[truth[:1]])).max()

    found = fit_visible(bright, truth, images, visible, prior)
    np.testing.assert_array_equal(found, truth)


def test_parents_are_compared_without_an_array_of_parents_by_entries():
    space, rng = CodeSpace(3, 20_000), np.random.default_rng(0)
    parents = np.sort(np.stack([rng.choice(20_000, 3, replace=False) for _ in range(500)]))
    images, visible = jnp.zeros((8, 4, 4, 3)), jnp.ones((8, 4, 4, 1))
    truth = parents[100:108].copy()
    truth[:, 0] = 0  # two codes in common with a parent, whose image is the right one

    def white(codes: jax.Array) -> jax.Array:
        found = (codes[:, 0] > 0) & jnp.all(codes == parents[100:108], 1)
        return jnp.broadcast_to(jnp.where(found, 0.0, 1.0)[:, None, None, None], images.shape)

    def guess() -> np.ndarray:
        how = space, parents.astype(np.int32), images, visible
        return np.asarray(completion.first_guess(lambda x: jnp.asarray(truth), white, *how))

    np.testing.assert_array_equal(guess(), parents[100:108])
    tracemalloc.start()
    try:
        guess()
        assert tracemalloc.get_traced_memory()[1] < parents.shape[0] * 20_000
    finally:
        tracemalloc.stop()
