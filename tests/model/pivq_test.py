"""The whole model: shapes, types, and a decoder that cannot see an order."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pivq_jax.config.sections import ModelConfig
from pivq_jax.model.pivq import PIVQ, pivq_from_config
from tests.parameters import draw_like

SIZES = {"image_size": 16, "patch_size": 4, "num_codes": 6, "codebook_size": 20, "code_dim": 8}


def make(**changes: Any) -> PIVQ:
    network = {"width": 16, "heads": 2, "encoder_depth": 1, "set_depth": 1, "decoder_depth": 2}
    fields = {**SIZES, **network, "output_channels": 8, **changes}
    known = ModelConfig().keys()
    config = ModelConfig(**{name: fields.pop(name) for name in known if name in fields})
    return PIVQ(config, **fields)


def noise(shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, shape), jnp.float32)


@functools.cache
def initialised(**changes: Any) -> tuple[PIVQ, Any]:
    """A model and random parameters, drawn without compiling its `init`."""
    model = make(**changes)
    # Nearest entries have the same parameters, and no matching to trace.
    traced = model.clone(kind="nearest") if model.kind == "matching" else model
    images = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.float32)
    shapes = jax.eval_shape(traced.init, jax.random.key(0), images)["params"]
    return model, draw_like(shapes, np.random.default_rng(0))


@functools.cache
def jitted(model: PIVQ, method: Any) -> Any:
    return jax.jit(functools.partial(model.apply, method=method))


def apply(model: PIVQ, params: Any, images: Any, method: Any) -> Any:
    """`model.apply`, compiled in one piece."""
    return jitted(model, method)({"params": params}, images)


@functools.cache
def decoder(**changes: Any) -> Any:
    model, params = initialised(**changes)
    return jax.jit(lambda codes: model.apply({"params": params}, codes, method="decode"))


UNORDERED: list[dict[str, Any]] = [
    {"output": "conv"},
    {"output": "patch", "local_output": True},
    {"kind": "nearest"},
]


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from(UNORDERED))
def test_decoder_does_not_see_the_order_of_codes(seed, changes):
    rng, count, size = np.random.default_rng(seed), SIZES["num_codes"], SIZES["codebook_size"]
    codes = np.stack([rng.permutation(size)[:count] for _ in range(4)])
    if changes.get("kind") == "nearest":
        codes %= 5  # so that some repeat
    decode = decoder(**changes)
    images = decode(codes)
    np.testing.assert_allclose(images, decode(rng.permuted(codes, axis=1)), atol=1e-5)
    assert np.std(images - images[:1]) > 1e-3  # not by being blank


def test_positional_decoder_sees_the_order():
    codes = np.arange(6)[None]
    decode = decoder(kind="positional")
    assert np.max(np.abs(decode(codes) - decode(codes[:, ::-1]))) > 1e-3


@pytest.mark.parametrize(
    "output, local, image_size, patch_size, batch, dtype",
    [
        ("conv", True, 16, 8, 1, "float32"),
        ("conv", False, 64, 16, 2, "bfloat16"),
        ("patch", True, 15, 5, 2, "bfloat16"),
    ],
)
def test_shapes_and_types(output, local, image_size, patch_size, batch, dtype):
    model = make(
        output=output,
        local_output=local,
        image_size=image_size,
        patch_size=patch_size,
        dtype=dtype,
    )
    images = jax.ShapeDtypeStruct((batch, image_size, image_size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}

    predictions, quantized = jax.eval_shape(model.apply, variables, images)
    latents = jax.eval_shape(functools.partial(model.apply, method="latents"), variables, images)
    assert (predictions.shape, predictions.dtype) == (images.shape, jnp.float32)
    assert (latents.shape, latents.dtype) == ((batch, 6, 8), jnp.float32)
    assert (quantized.indices.shape, quantized.indices.dtype) == ((batch, 6), jnp.int32)
    assert quantized.vectors.shape == (batch, 6, 8)
    assert quantized.converged.shape == (batch,)


@pytest.mark.slow
def test_local_output_begins_without_effect():
    """A new model decodes as one without it, but the first step changes its kernels."""
    images, codes = noise((1, 16, 16, 3)), jnp.arange(6)[None]
    model, plain = make(local_output=True), make()
    params, without = (
        jax.jit(each.init)(jax.random.key(0), images)["params"] for each in (model, plain)
    )
    decoded = apply(model, params, codes, "decode")
    np.testing.assert_array_equal(decoded, apply(plain, without, codes, "decode"))

    def loss(params):
        return jnp.sum(model.apply({"params": params}, codes, method="decode"))

    gradients = jax.jit(jax.grad(loss))(params)["decoder"]["local_output"]["kernels"]
    assert np.all(np.any(np.asarray(gradients) != 0, (1, 2)))  # of each patch


def test_nothing_is_computed_that_is_not_read():
    """The patches in the encoder's last block; for each image what all images share."""
    model, params = initialised(encoder_depth=2)
    images = jax.ShapeDtypeStruct((3, 16, 16, 3), jnp.float32)
    apply = functools.partial(model.apply, {"params": params}, capture_intermediates=True)
    made = jax.eval_shape(apply, images)[1]["intermediates"]

    def shape(side: str, *path: str) -> tuple[int, ...]:
        found = functools.reduce(lambda tree, name: tree[name], path, made[side])
        return found["__call__"][0].shape

    assert shape("encoder", "block_0") == (3, 16 + 6, 16)
    assert shape("encoder", "block_1") == shape("encoder", "block_1", "mlp") == (3, 6, 16)
    assert shape("decoder", "block_0", "self_attention") == (1, 16, 16)
    assert shape("decoder", "block_0") == shape("decoder", "block_1") == (3, 16, 16)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind = 'sets' is unknown: use one of matching, "):
        initialised(kind="sets")


@pytest.mark.slow
def test_rematerialisation_changes_memory_not_gradients():
    images = noise((2, 16, 16, 3))

    def loss(model, params):
        predictions, quantized = model.apply({"params": params}, images)
        return jnp.mean((predictions - images) ** 2) + quantized.commitment_loss

    model, params = initialised()
    plain = jax.jit(jax.grad(lambda p: loss(model, p)))(params)
    remat = jax.jit(jax.grad(lambda p: loss(make(remat=True), p)))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), plain, remat)
    held = []
    for m in (model, make(remat=True)):
        pull_back = jax.eval_shape(lambda p, m=m: jax.vjp(functools.partial(loss, m), p)[1], params)
        held.append(sum(x.size for x in jax.tree.leaves(pull_back)))
    given_anyway = sum(x.size for x in jax.tree.leaves(params))
    assert held[1] - given_anyway < (held[0] - given_anyway) / 4


def test_config_gives_every_field(tiny_config):
    config = tiny_config.with_fields({"quantizer.method": "greedy"})
    model = pivq_from_config(config)
    assert model.matcher.keywords == {"method": "greedy"}
    assert model.config == config.model
    assert model.image_size == 16 and model.codebook_size == 32 and model.kind == "matching"
