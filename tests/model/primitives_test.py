"""The layers with gradients of their own against Flax's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pivq_jax.model.primitives import NORM_EPSILON, LayerNorm, dense, gelu


def value_and_gradients(layer, params, x, weights):
    """Of a loss that is not linear in the layer's result."""

    def loss(params, x):
        return jnp.sum(weights * jnp.tanh(layer.apply(params, x).astype(jnp.float32)))

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, x)


KEY = jax.random.key(0)


def assert_same(ours, theirs, shape, features, dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(2.0, 3.0, shape), dtype)
    weights = rng.normal(size=(*shape[:-1], features)).astype(np.float32)
    shapes, of_theirs = (jax.eval_shape(layer.init, KEY, x) for layer in (ours, theirs))
    assert shapes == of_theirs
    params = jax.tree.map(lambda p: rng.normal(0.5, 0.5, p.shape).astype(p.dtype), shapes)
    found = value_and_gradients(ours, params, x, weights)
    expected = value_and_gradients(theirs, params, x, weights)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        limit = 1e-5 if dtype == jnp.float32 else 2e-2
        np.testing.assert_allclose(a, b, atol=limit * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (dense(12, jnp.bfloat16, "layer"), nn.Dense(12, dtype=jnp.bfloat16, name="layer")),
        (LayerNorm(jnp.float32), nn.LayerNorm(dtype=jnp.float32)),
    ],
)
def test_initial_weights_are_those_of_flax(ours, theirs):
    found, expected = (jax.jit(layer.init)(KEY, jnp.ones((2, 8))) for layer in (ours, theirs))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("leading", [(6,), (2, 3, 4)])
def test_dense_and_layer_norm_are_those_of_flax(leading, dtype):
    ours, theirs = dense(12, dtype, "layer"), nn.Dense(12, dtype=dtype, name="layer")
    assert_same(ours, theirs, (*leading, 8), 12, dtype)
    norm = nn.LayerNorm(epsilon=NORM_EPSILON, dtype=dtype)
    assert_same(LayerNorm(dtype), norm, (*leading, 16), 16, dtype)


def test_layer_norm_of_large_equal_numbers_is_its_bias():
    """E[x^2] - E[x]^2, the fast variance of Flax, would be rounding error here."""
    params = {"params": {"scale": jnp.ones(8), "bias": jnp.full(8, 0.5)}}
    y = LayerNorm(jnp.float32).apply(params, jnp.full((2, 8), 1e4))
    np.testing.assert_array_equal(y, 0.5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gelu_is_that_of_flax_and_keeps_its_argument_alone(dtype):
    x = 3.0 * jax.random.normal(jax.random.key(0), (4, 7), dtype)
    g = jax.random.normal(jax.random.key(1), (4, 7), dtype)
    found, pull_back = jax.vjp(gelu, x)
    expected, expected_pull_back = jax.vjp(nn.gelu, x)
    np.testing.assert_array_equal(found, expected)
    (a,), (b,) = pull_back(g), expected_pull_back(g)
    assert a.dtype == b.dtype == dtype
    limit = 1e-6 if dtype == jnp.float32 else 2e-2
    np.testing.assert_allclose(np.float32(a), np.float32(b), atol=limit * 3)
    assert sum(kept.size for kept in jax.tree.leaves(pull_back)) == x.size
