"""Names and layouts of weights: PyTorch's, and back without a changed bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.interop import from_torch, to_torch
from pivq_jax.interop.safetensors_file import model_shapes
from pivq_jax.interop.torch_model import PIVQ as Reference

VARIANTS = [
    {},
    {"quantizer.kind": "nearest", "model.output": "patch", "model.local_output": True},
    {"quantizer.kind": "positional"},
]


def random_params(config, seed: int = 0):
    """Every parameter drawn, and some bit patterns that a sum or product would change."""
    rng = np.random.default_rng(seed)

    def draw(shape: jax.ShapeDtypeStruct) -> jax.Array:
        values = rng.normal(size=shape.shape).astype(np.float32)
        values.flat[0] = rng.choice([np.nan, -0.0, 1e-42, np.inf])
        return jnp.asarray(values)

    return jax.tree.map(draw, model_shapes(config))


@pytest.mark.parametrize("changes", VARIANTS)
def test_round_trip_keeps_every_bit(tiny_config, changes):
    config = tiny_config.with_fields(changes)
    params = random_params(config)
    back = from_torch(to_torch(params), model_shapes(config))
    assert jax.tree.structure(back) == jax.tree.structure(params)
    for (path, value), other in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(back), strict=True
    ):
        assert np.asarray(value).tobytes() == other.tobytes(), jax.tree_util.keystr(path)


@pytest.mark.parametrize("changes", VARIANTS)
def test_names_and_shapes_are_those_of_the_model_in_pytorch(tiny_config, changes):
    config = tiny_config.with_fields(changes)
    state_dict = to_torch(random_params(config))
    assert all(array.flags.c_contiguous for array in state_dict.values())
    reference = Reference(config.to_dict()).state_dict()
    assert {name: array.shape for name, array in state_dict.items()} == {
        name: tuple(tensor.shape) for name, tensor in reference.items()
    }


def test_every_fault_is_named_at_once(tiny_config):
    state_dict = to_torch(random_params(tiny_config))
    del state_dict["encoder.norm.weight"], state_dict["decoder.queries"]
    kernel = state_dict["encoder.blocks.0.mlp.out.weight"]
    state_dict["encoder.blocks.0.mlp.out.weight"] = kernel[:, :-1]
    state_dict["quantizer.codebook"] = state_dict["quantizer.codebook"].astype(np.float16)
    state_dict["encoder.blocks.7.mlp.out.bias"] = np.zeros(3, np.float32)
    with pytest.raises(InputError) as caught:
        from_torch(state_dict, model_shapes(tiny_config))
    message = str(caught.value)
    for part in [
        "encoder.norm.weight is missing",
        "decoder.queries is missing",
        f"encoder.blocks.0.mlp.out.weight has shape ({kernel.shape[0]}, {kernel.shape[1] - 1}),"
        f" not ({kernel.shape[0]}, {kernel.shape[1]})",
        "quantizer.codebook has type float16, not float32",
        "encoder.blocks.7.mlp.out.bias is unexpected",
    ]:
        assert part in message
    assert message.count(";") == 4 and "\n" not in message


def test_a_transposed_square_weight_is_transposed_once(tiny_config):
    """The shape of a square matrix cannot tell, so its numbers must."""
    params = random_params(tiny_config)
    kernel = np.asarray(params["encoder"]["block_0"]["self_attention"]["query"]["kernel"])
    weight = to_torch(params)["encoder.blocks.0.self_attention.query.weight"]
    assert weight.shape == kernel.shape
    np.testing.assert_array_equal(weight, kernel.T)
    patches = np.asarray(params["encoder"]["patches"]["kernel"])
    weight = to_torch(params)["encoder.patches.weight"]
    for out, channel, row, column in [(0, 1, 2, 3), (5, 2, 1, 0)]:
        assert weight[out, channel, row, column] == patches[row, column, channel, out]
