"""Lowered for a GPU, no step adds floats in an order that is not given.

Read from the StableHLO, which needs no GPU. Two operations give results that differ from run to
run: a select-and-scatter, which XLA refuses where results must be deterministic, and a scatter of
several values to one place. A scatter is allowed if its places differ (`unique_indices`), or if it
combines integers, whose sum, minimum or maximum does not depend on the order.
"""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from pivq_jax.common.parallel import make_mesh
from pivq_jax.config import Config, load_config
from pivq_jax.config.loader import experiments
from pivq_jax.losses.lpips_weights import weight_shapes
from pivq_jax.matching import METHODS
from pivq_jax.training.build import networks_of
from pivq_jax.training.objective import Phase
from pivq_jax.training.steps import Steps

EVERY_LOSS = {
    "loss.perceptual": 1.0,
    "loss.recombination": 0.5,
    "adversarial.weight": 0.5,
    "adversarial.recombined_weight": 0.5,
}
COMBINED = re.compile(r"= stablehlo\.(add|minimum|maximum|and|or) ")


def unordered(jitted: jax.stages.Wrapped, *args) -> list[str]:
    """The operations in the program for a GPU whose order is not given, as their types."""
    text = jitted.trace(*args).lower(lowering_platforms=("cuda",)).as_text()
    found = re.findall(r'"stablehlo\.select_and_scatter".*', text)
    for start in re.finditer(r'"stablehlo\.scatter"', text):
        operation = text[start.start() : text.index(" -> ", start.start())]
        types = operation[operation.rindex(" : (") :]
        combined = COMBINED.search(operation) and not re.search(r"x(f|bf)\d+>|<f\d+>", types)
        if "unique_indices = true" not in operation and not combined:
            found.append(f"scatter{types}")
    return found


def arguments(steps: Steps, config: Config, phase: Phase) -> tuple:
    """Those of `steps.train`, without values."""
    size = config.data.image_size
    images = jax.ShapeDtypeStruct((config.train.batch_size, size, size, 3), jnp.uint8)
    networks = {name: weight_shapes(name) for name in networks_of(config)}
    return jax.eval_shape(steps.create), images, networks, phase


def check_all_but_training(steps: Steps, config: Config) -> None:
    state, images, *_ = arguments(steps, config, Phase.QUANTIZED)
    count = config.model.num_codes
    latents = (2, config.quantizer.codebook_size // count, count, config.model.code_dim)
    assert not unordered(steps.initialise, state, jax.ShapeDtypeStruct(latents, jnp.float32))
    assert not unordered(steps.revive, state, images)


def test_what_has_no_order_is_found():
    values, places = jnp.zeros((4, 3)), jnp.zeros(5, jnp.int32)
    gradient = jax.jit(jax.grad(lambda values: values[places].sum()))
    assert unordered(gradient, values) == [
        "scatter : (tensor<4x3xf32>, tensor<5x1xi32>, tensor<5x3xf32>)"
    ]
    replaced = jax.jit(lambda values: values.at[places].set(7))
    assert len(unordered(replaced, values.astype(jnp.int32))) == 1
    counted = jax.jit(lambda values: values.at[places].add(7))
    assert not unordered(counted, values.astype(jnp.int32))
    distinct = jax.jit(lambda values: values.at[places].add(7, unique_indices=True))
    assert not unordered(distinct, values)
    pool = jax.jit(jax.grad(lambda x: nn.max_pool(x, (2, 2), (2, 2)).sum()))
    assert len(unordered(pool, jnp.zeros((1, 4, 4, 2)))) == 1


def test_training_has_an_order_on_a_gpu(everything):
    steps, config = everything
    # This phase does all that the others do.
    assert not unordered(steps.train, *arguments(steps, config, Phase.ADVERSARIAL))


def test_initialisation_and_revival_have_an_order_on_a_gpu(everything):
    check_all_but_training(*everything)


@pytest.fixture(scope="module")
def everything(tiny_config) -> tuple[Steps, Config]:
    """A tiny model with all losses."""
    size = {"data.image_size": 32, "model.patch_size": 8}  # enough for AlexNet
    config = tiny_config.with_fields({**EVERY_LOSS, **size})
    return Steps(config, make_mesh()), config


CONFIGS = [f"{name}:smoke" for name in experiments()]
CONFIGS += ["toon_faces:smoke,nearest", "toon_faces:smoke,positional"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_has_an_order_on_a_gpu(name):
    network = "vgg" if name.startswith("toon_faces") else "alex"
    config = load_config(name).with_fields({**EVERY_LOSS, "loss.perceptual_network": network})
    steps = Steps(config, make_mesh())
    phase = Phase.DECODER if config.model.encoder == "components" else Phase.ADVERSARIAL
    assert not unordered(steps.train, *arguments(steps, config, phase))
    check_all_but_training(steps, config)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS[1:])
def test_every_solver_has_an_order_on_a_gpu(method, tiny_config):
    config = tiny_config.with_fields({"quantizer.method": method})
    steps = Steps(config, make_mesh())
    assert not unordered(steps.train, *arguments(steps, config, Phase.QUANTIZED))
