"""The quantizer against SciPy, NumPy and the definitions of its losses."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from pivq_jax.model import quantizer
from pivq_jax.model.quantizer import (
    Quantizer,
    _add_rows,
    add_noise,
    assign,
    look_up,
    nearest,
    revive_dead,
    squared_distances,
)

assign_matching = jax.jit(functools.partial(assign, kind="matching"))
revive = jax.jit(revive_dead)


def distances64(latents: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    difference = latents.astype(np.float64)[:, :, None] - codebook.astype(np.float64)
    return np.sum(difference**2, -1)


def draw(seed: int, b: int = 3, n: int = 6, k: int = 20, d: int = 5, scale: float = 1.0):
    rng = np.random.default_rng(seed)
    latents = scale * rng.normal(size=(b, n, d)) + rng.normal(size=(b, 1, d))
    return latents.astype(np.float32), rng.normal(size=(k, d)).astype(np.float32)


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from([1e-2, 1.0, 30.0]), st.booleans())
def test_squared_distances_are_those_of_float64(seed, scale, half):
    latents, codebook = draw(seed, scale=scale)
    low = jnp.asarray(latents, jnp.bfloat16 if half else jnp.float32)
    result = np.asarray(squared_distances(low, jnp.asarray(codebook)))
    assert result.dtype == np.float32 and np.all(result >= 0)
    expected = distances64(np.asarray(low, np.float32), codebook)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5 * max(1, scale**2))


@pytest.mark.parametrize("n", [1, 31])
def test_with_one_entry_to_spare_an_image_that_is_not_finite_spoils_no_other(n):
    rng = np.random.default_rng(n)
    latents, codebook = draw(n, b=7, n=n, k=n + 1)
    latents[1, 0, 0], latents[3], latents[5, -1, 1] = np.nan, np.inf, -np.inf
    latents[2], latents[4] = 3.0, codebook[rng.permutation(n)]  # all alike; an entry each
    codebook[-1] = codebook[0]  # two that cannot be told apart
    indices, converged = map(np.asarray, assign_matching(latents, codebook))
    assert converged.tolist() == [i not in (1, 3, 5) for i in range(7)]
    assert ((indices >= 0) & (indices <= n)).all()
    costs = distances64(latents, codebook)
    for cost, columns in zip(costs[converged], indices[converged], strict=True):
        assert len({*columns.tolist()}) == n
        rows, best = linear_sum_assignment(cost)
        found, least = cost[rows, columns].sum(), cost[rows, best].sum()
        assert found <= least + 1e-5 * max(1.0, cost.max())
    mended = np.where(converged[:, None, None], latents, 0)
    others, _ = assign_matching(mended, codebook)
    np.testing.assert_array_equal(others[converged], indices[converged])


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from([0.01, 1.0, 5.0]))
def test_matching_is_the_optimal_assignment_of_scipy(seed, scale):
    latents, codebook = draw(seed, scale=scale)  # 0.01: all latents want the same entry
    indices, converged = assign_matching(latents, codebook)
    assert np.all(converged)
    for row, cost in zip(np.asarray(indices), distances64(latents, codebook)):
        assert len(set(row.tolist())) == 6 and row.min() >= 0 and row.max() < 20
        best = cost[linear_sum_assignment(cost)].sum()
        np.testing.assert_allclose(cost[np.arange(6), row].sum(), best, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["nearest", "positional"])
def test_the_first_of_the_nearest_entries_is_chosen(kind):
    latents, codebook = draw(0, b=20)
    indices, converged = assign(jnp.asarray(latents), jnp.asarray(codebook), kind)
    assert np.all(converged)
    np.testing.assert_array_equal(indices, distances64(latents, codebook).argmin(-1))
    cost = np.random.default_rng(0).integers(0, 3, (2, 50, 7)).astype(np.float32)
    columns, least = nearest(jnp.asarray(cost))
    np.testing.assert_array_equal(columns, cost.argmin(-1))
    np.testing.assert_array_equal(least, cost.min(-1))


@pytest.mark.parametrize("quickly", [False, True])
@pytest.mark.parametrize("kind", ["matching", "nearest"])
def test_latents_that_are_not_finite_are_reported_for_their_image_alone(kind, quickly):
    latents, codebook = draw(0)
    latents[1, 2, 0] = np.nan
    # Fused with the assignment, a maximum of NaN and 0 may become 0: both ways of compiling.
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", quickly)
    try:
        _, converged = jax.jit(functools.partial(assign, kind=kind))(latents, codebook)
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
    assert np.asarray(converged).tolist() == [True, False, True]


def quantize(latents, codebook, kind="matching"):
    module = Quantizer(len(codebook), codebook.shape[1], kind)
    return module.apply({"params": {"codebook": codebook}}, latents)


def test_the_gradient_of_entries_is_the_sum_over_their_uses():
    codebook, indices = jnp.zeros((20, 4)), jax.random.randint(jax.random.key(0), (3, 50), 0, 19)
    cotangent = jax.random.normal(jax.random.key(1), (3, 50, 4))
    expected = np.zeros((20, 4))
    np.add.at(expected, np.asarray(indices), np.asarray(cotangent, np.float64))
    (gradient,) = jax.vjp(lambda entries: look_up(entries, indices), codebook)[1](cotangent)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
    for parts in (1, 5):  # on a TPU, on a GPU
        elsewhere = _add_rows(20, indices, cotangent, parts)
        np.testing.assert_allclose(elsewhere, expected, atol=1e-5)


def test_no_array_for_a_gpu_has_one_hot_rows_of_all_latents(monkeypatch):
    """Lowered for it, the gradient of a stage's entries."""
    monkeypatch.setattr(quantizer, "LARGEST_ONE_HOT", 2 * 4 * 32 / jax.device_count())
    arrays = jnp.zeros((32, 3)), jnp.zeros((2, 12), jnp.int32), jnp.zeros((2, 12, 3))

    @jax.jit
    def gradient(codebook, indices, cotangent):
        return jax.vjp(lambda entries: look_up(entries, indices), codebook)[1](cotangent)

    for platform, held in (("cuda", "8x32xf32"), ("tpu", "24x32xf32")):
        text = gradient.trace(*arrays).lower(lowering_platforms=(platform,)).as_text()
        found = set(re.findall(r"tensor<((?:\d+x)+32xf32)>", text))
        assert found == {held}, platform


@pytest.mark.parametrize("kind", ["matching", "nearest"])
def test_vectors_pass_gradients_straight_through_and_each_loss_moves_only_what_it_should(kind):
    latents, codebook = draw(4)
    arrays = jnp.asarray(latents), jnp.asarray(codebook)
    direction = np.random.default_rng(0).normal(size=latents.shape).astype(np.float32)
    straight = jax.grad(lambda z, c: jnp.sum(quantize(z, c, kind).vectors * direction), (0, 1))
    to_latents, to_codebook = straight(*arrays)
    np.testing.assert_array_equal(to_latents, direction)
    np.testing.assert_array_equal(to_codebook, np.zeros_like(codebook))

    result = quantize(*arrays, kind)
    indices = np.asarray(result.indices)
    np.testing.assert_allclose(result.vectors, codebook[indices], atol=1e-6)
    squared = np.mean((latents.astype(np.float64) - codebook[indices]) ** 2)
    losses = result.codebook_loss, result.commitment_loss
    np.testing.assert_allclose(losses, squared, rtol=1e-5)
    error = 2 * (latents - codebook[indices]) / latents.size

    of_codebook = jax.grad(lambda z, c: quantize(z, c, kind).codebook_loss, (0, 1))(*arrays)
    np.testing.assert_array_equal(of_codebook[0], np.zeros_like(latents))
    expected = np.zeros_like(codebook)
    np.add.at(expected, indices, -error)
    np.testing.assert_allclose(of_codebook[1], expected, rtol=1e-4, atol=1e-7)

    of_commitment = jax.grad(lambda z, c: quantize(z, c, kind).commitment_loss, (0, 1))(*arrays)
    np.testing.assert_allclose(of_commitment[0], error, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(of_commitment[1], np.zeros_like(codebook))


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.sets(st.integers(0, 19)))
def test_exactly_the_dead_entries_move_onto_latents_of_the_batch(seed, dead):
    latents, codebook = draw(seed, b=4)  # 24 latents, at least as many as dead entries
    uses = np.full(20, 100, np.int32)
    uses[list(dead)] = 0
    indices, _ = assign_matching(latents, codebook)
    key = jax.random.key(seed)
    new, mask = map(np.asarray, revive(codebook, uses, latents, indices, key, 0.05))
    expected = np.isin(np.arange(20), list(dead)) & (uses.mean() > 0)
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(new[~mask], codebook[~mask])  # bit for bit
    flat = {row.tobytes() for row in latents.reshape(-1, 5)}
    moved = [row.tobytes() for row in new[mask]]
    assert set(moved) <= flat and len(set(moved)) == len(moved)  # each onto another latent


def test_fewer_latents_than_dead_entries_revive_so_many():
    latents, codebook = draw(0, b=1, n=4)
    uses = np.zeros(20, np.int32)
    uses[:2] = 50
    indices, _ = assign_matching(latents, codebook)
    new, mask = map(np.asarray, revive(codebook, uses, latents, indices, jax.random.key(0), 0.05))
    assert mask.sum() == 4 and not mask[:2].any()
    assert {r.tobytes() for r in new[mask]} == {r.tobytes() for r in latents.reshape(-1, 5)}
    np.testing.assert_array_equal(new[~mask], codebook[~mask])


def test_the_threshold_is_a_fraction_of_the_mean_use():
    latents, codebook = draw(0, k=4)
    uses = np.array([4, 6, 95, 95], np.int32)  # mean 50
    indices = np.zeros(latents.shape[:2], np.int32)
    for threshold, dead in ((0.05, 0), (0.1, 1), (0.2, 2), (0.0, 0)):
        _, mask = revive(codebook, uses, latents, indices, jax.random.key(0), threshold)
        assert np.asarray(mask).tolist() == [i < dead for i in range(4)]


def test_a_latent_is_drawn_as_often_as_its_squared_error_says():
    codebook = np.array([[0.0, 0.0], [50.0, 50.0]], np.float32)
    latents = np.zeros((1, 10, 2), np.float32)
    latents[0, 2, 0], latents[0, 7, 1] = 1.0, np.sqrt(3.0)
    indices, uses = np.zeros((1, 10), np.int32), np.array([10, 0], np.int32)
    keys = jax.random.split(jax.random.key(0), 1000)
    new, _ = jax.vmap(lambda key: revive(codebook, uses, latents, indices, key, 0.05))(keys)
    far = np.asarray(new)[:, 1, 1] > 0
    assert np.all(far | (np.asarray(new)[:, 1, 0] == 1.0))
    assert far.mean() == pytest.approx(0.75, abs=0.05)  # 3.6 standard deviations


def test_without_a_codebook_the_decoder_gets_latents_with_noise():
    latents = jnp.asarray(np.random.default_rng(0).normal(size=(8, 400, 16)), jnp.float32)
    vectors = add_noise(latents, 0.6, jax.random.key(0))
    assert np.std(vectors - latents) == pytest.approx(0.6, rel=0.01)
    np.testing.assert_array_equal(add_noise(latents, 0.0), latents)
    with pytest.raises(ValueError, match=r"noise = 0\.6 is drawn with a key"):
        add_noise(latents, 0.6)  # not the same noise each time
