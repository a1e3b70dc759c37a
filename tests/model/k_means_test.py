"""k-means for the initial codebook: against ott-jax, and on points with a known answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.tools import k_means as ott_k_means

from pivq_jax.model.k_means import initial_codebook, k_means

initialise = jax.jit(initial_codebook, static_argnums=1)
cluster = jax.jit(k_means, static_argnums=1)


def draw(seed: int, m: int) -> np.ndarray:
    """float32 [m, 5], in images of six that have a mean of their own."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(m // 6, 6, 5)) + rng.normal(size=(m // 6, 1, 5))
    return points.reshape(-1, 5).astype(np.float32)


def distances64(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    difference = np.asarray(x, np.float64)[:, None] - np.asarray(y, np.float64)
    return np.sum(difference**2, -1)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_clusters_are_those_of_ott(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)  # says how many points at once
    points, key = jnp.asarray(draw(0, 600)), jax.random.key(0)
    theirs = ott_k_means.k_means(points, 24, n_init=1, max_iterations=50, rng=key).centroids
    (own,) = jax.random.split(key, 1)  # it draws from n_init keys
    ours = jax.jit(lambda points, key: k_means(points, 24, key))(points, own)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_fewer_different_points_than_clusters_all_become_centroids():
    """The others are empty at first, and get points that no longer differ from a centroid."""
    values = draw(1, 6)
    points = jnp.asarray(np.random.default_rng(0).permutation(np.repeat(values, 10, axis=0)))
    centroids = cluster(points, 9, jax.random.key(0))
    to_values = distances64(values, centroids)
    assert to_values.min(1).max() < 1e-10 and to_values.min(0).max() < 1e-10


def test_the_initial_codebook_lies_among_the_latents_and_depends_on_the_key_alone():
    flat = draw(5, 300)
    codebook, again = (initialise(flat, 12, jax.random.key(1)) for _ in range(2))
    np.testing.assert_array_equal(codebook, again)
    other = initialise(flat, 12, jax.random.key(4))
    assert not np.array_equal(np.sort(codebook, axis=0), np.sort(other, axis=0))
    assert np.all(codebook >= flat.min(0)) and np.all(codebook <= flat.max(0))
    chosen = flat[np.random.default_rng(0).permutation(300)[:12]]
    error = distances64(flat, codebook).min(-1).mean()
    assert error < distances64(flat, chosen).min(-1).mean()  # better than a random draw
