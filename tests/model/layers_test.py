"""The shared layers against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.model.layers import (
    Block,
    depth_to_space,
    positions_2d,
    space_to_depth,
)


def test_positions_are_sines_and_cosines_of_row_and_column():
    positions = positions_2d(3, 5, 8)
    assert positions.shape == (15, 8) and positions.dtype == np.float32
    for row in range(3):
        for column in range(5):
            angles = [row, row / 100, column, column / 100]  # wavelengths 2 pi and 100 * 2 pi
            expected = [*np.sin(angles), *np.cos(angles)]
            np.testing.assert_allclose(positions[row * 5 + column], expected, atol=1e-6)


def test_depth_to_space_puts_each_block_in_its_place_and_space_to_depth_back():
    x = np.arange(2 * 3 * 4 * 12).reshape(2, 3, 4, 12)
    y = np.asarray(depth_to_space(jnp.asarray(x), 2))
    assert y.shape == (2, 6, 8, 3)
    for i, j in np.ndindex(6, 8):
        block = x[:, i // 2, j // 2].reshape(2, 2, 2, 3)
        np.testing.assert_array_equal(y[:, i, j], block[:, i % 2, j % 2])
    np.testing.assert_array_equal(space_to_depth(jnp.asarray(y), 2), x)


def drawn_params(module, *args):
    """Random parameters, drawn without compiling `init`."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *args)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), jnp.float32), shapes)


def loss_and_gradients(apply, params, x, *context):
    def loss(params, x, *context):
        y = apply(params, x, *context)
        return jnp.sum(jnp.tanh(y) * jnp.arange(1, 1 + y.shape[-1])), y

    arguments = tuple(range(2 + len(context)))
    return jax.jit(jax.value_and_grad(loss, arguments, has_aux=True))(params, x, *context)


def assert_close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected
    )


def test_last_tokens_of_a_block_are_those_of_the_whole_block():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 8)), jnp.float32)
    whole, short = Block(heads=2), Block(heads=2, last=3)
    params = drawn_params(whole, x)
    found = loss_and_gradients(short.apply, params, x)
    assert found[0][1].shape == (2, 3, 8)
    assert_close(found, loss_and_gradients(lambda p, x: whole.apply(p, x)[:, -3:], params, x))


def test_block_of_tokens_that_images_share_is_that_of_their_copies():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 7, 8)), jnp.float32)
    context = jnp.asarray(rng.normal(size=(3, 5, 8)), jnp.float32)
    block = Block(heads=2)
    params = drawn_params(block, x, context)

    def of_copies(params, x, context):
        return block.apply(params, jnp.repeat(x, len(context), axis=0), context)

    found = loss_and_gradients(block.apply, params, x, context)
    assert found[0][1].shape == (3, 7, 8)
    assert_close(found, loss_and_gradients(of_copies, params, x, context))


def test_block_computes_in_bfloat16_with_float32_parameters():
    block = Block(heads=2, dtype=jnp.bfloat16)
    x = jnp.ones((1, 3, 16), jnp.bfloat16)
    variables = jax.eval_shape(block.init, jax.random.key(0), x, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert jax.eval_shape(block.apply, variables, x, x).dtype == jnp.bfloat16
