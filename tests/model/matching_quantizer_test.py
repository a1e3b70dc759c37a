"""The layer in models of other people, in Linen and NNX, and its values by SciPy."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy.optimize import linear_sum_assignment

from pivq_jax.model import MatchingQuantizer
from pivq_jax.model.quantizer import match_latents

IMAGES = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))


class LinenAutoencoder(nn.Module):
    """Somebody's VQ-VAE: feature maps [B, 4, 4, 6]."""

    @nn.compact
    def __call__(self, images):
        features = nn.LayerNorm()(nn.Conv(6, (2, 2), (2, 2))(images))
        quantized = MatchingQuantizer(32)(features)
        return nn.ConvTranspose(3, (2, 2), (2, 2))(quantized.vectors), quantized


class NNXAutoencoder(nnx.Module):
    """The same in NNX."""

    def __init__(self, rngs):
        self.encoder = nnx.Conv(3, 6, (2, 2), 2, rngs=rngs)
        self.norm = nnx.LayerNorm(6, rngs=rngs)
        layer = nnx.bridge.ToNNX(MatchingQuantizer(32), rngs=rngs)
        self.quantizer = nnx.bridge.lazy_init(layer, jnp.zeros((1, 4, 4, 6)))
        self.decoder = nnx.ConvTranspose(6, 3, (2, 2), 2, rngs=rngs)

    def __call__(self, images):
        quantized = self.quantizer(self.norm(self.encoder(images)))
        return self.decoder(quantized.vectors), quantized


def loss_of(made, quantized):
    return (
        jnp.mean((made - IMAGES) ** 2) + quantized.codebook_loss + 0.25 * quantized.commitment_loss
    )


def assert_learned(losses, before, after):
    assert losses[-1] < 0.7 * losses[0]
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, after)
    assert len(jax.tree.leaves(moved)) == 7 and all(jax.tree.leaves(moved)), moved


def test_a_linen_model_with_feature_maps_learns():
    model, optimizer = LinenAutoencoder(), optax.adam(1e-2)
    params = model.init(jax.random.key(1), IMAGES)["params"]
    first, state = params, optimizer.init(params)

    @jax.jit
    def step(params, state):
        loss, gradient = jax.value_and_grad(lambda p: loss_of(*model.apply({"params": p}, IMAGES)))(
            params
        )
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, loss

    losses = []
    for _ in range(30):
        params, state, loss = step(params, state)
        losses.append(loss)
    assert_learned(losses, first, params)


def test_an_nnx_model_with_feature_maps_learns():
    model = NNXAutoencoder(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        loss, gradient = nnx.value_and_grad(lambda model: loss_of(*model(IMAGES)))(model)
        optimizer.update(model, gradient)
        return loss

    start = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    losses = [step(model, optimizer) for _ in range(30)]
    assert_learned(losses, start, nnx.to_pure_dict(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(3, 6, 5), (2, 1, 2, 3, 5)])
def test_values_are_those_of_scipy_in_the_shape_and_dtype_of_the_input(shape, dtype):
    latents = jax.random.normal(jax.random.key(2), shape, dtype)
    layer = MatchingQuantizer(9, partial(match_latents, method="shortest_path"))
    params = layer.init(jax.random.key(3), latents)
    quantized = layer.apply(params, latents)
    codebook = np.asarray(params["params"]["quantizer"]["codebook"], np.float64)
    flat = np.asarray(latents, np.float64).reshape(shape[0], -1, 5)
    cost = ((flat[:, :, None] - codebook) ** 2).sum(-1)
    columns = np.stack([linear_sum_assignment(problem)[1] for problem in cost])
    assert quantized.vectors.shape == shape and quantized.vectors.dtype == dtype
    assert quantized.indices.dtype == jnp.int32 and quantized.converged.all()
    np.testing.assert_array_equal(quantized.indices, columns.reshape(shape[:-1]))
    near = 1e-5 if dtype == jnp.float32 else 0.05
    np.testing.assert_allclose(
        np.asarray(quantized.vectors, np.float64), codebook[quantized.indices], atol=near
    )
    error = np.mean((flat - codebook[columns]) ** 2)
    np.testing.assert_allclose(quantized.codebook_loss, error, rtol=1e-4)
    np.testing.assert_allclose(quantized.commitment_loss, error, rtol=1e-4)


@pytest.mark.parametrize(
    "shape, message",
    [((2, 4, 4, 5), "has 16 vectors, .* has 9"), ((4, 5), r"must be \[B, ..., D\]")],
)
def test_refuses_more_vectors_than_entries_and_what_is_no_batch(shape, message):
    with pytest.raises(ValueError, match=message):
        MatchingQuantizer(9).init(jax.random.key(0), jnp.zeros(shape))


def test_latents_beyond_the_codebook_are_refused_where_they_are_matched():
    with pytest.raises(ValueError, match=r"7 latents .* 6 entries"):
        match_latents(jnp.zeros((2, 7, 3)), jnp.zeros((6, 3)))
