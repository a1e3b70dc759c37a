"""The model in Flax NNX, as docs/architecture.md says."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model.pivq_test import apply, initialised, noise


def test_wrapped_for_nnx_it_is_the_same_model():
    nnx: Any = pytest.importorskip("flax.nnx", exc_type=ImportError)  # not of flax 0.12.0, jax 0.10
    linen, params = initialised(kind="nearest")
    images = noise((2, 16, 16, 3))

    @jax.jit
    def wrapped(params: Any, images: jax.Array) -> tuple[Any, Any, Any]:
        model = nnx.bridge.ToNNX(linen, rngs=nnx.Rngs(0)).lazy_init(images)
        nnx.update(model, params)
        codes, _, _ = model(images, method="encode")
        loss, gradients = nnx.value_and_grad(lambda m: jnp.mean(m(images)[0] ** 2))(model)
        return codes, model(codes, method="decode"), (loss, nnx.to_pure_dict(gradients))

    codes, decoded, (loss, gradients) = wrapped(params, images)
    expected, _, _ = apply(linen, params, images, "encode")
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_allclose(decoded, apply(linen, params, codes, "decode"), atol=1e-5)
    value, theirs = jax.jit(
        jax.value_and_grad(lambda p: jnp.mean(linen.apply({"params": p}, images)[0] ** 2))
    )(params)
    np.testing.assert_allclose(loss, value, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), gradients, theirs)
