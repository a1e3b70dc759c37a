"""Random parameters for tests."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.common.parallel import make_mesh
from pivq_jax.config import Config
from pivq_jax.inference import TrainedModel
from pivq_jax.interop import model_shapes


def draw_like(shapes: Any, rng: np.random.Generator) -> Any:
    """Parameters of the size that training gives them: no zero biases, no unit scales."""

    def draw(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> jax.Array:
        mean, spread = {"scale": (1, 0.1), "bias": (0, 0.1)}.get(path[-1].key, (0, 1))
        if path[-1].key == "kernel":
            spread = np.prod(shape.shape[:-1]) ** -0.5
        if path[-1].key == "kernels":
            spread = shape.shape[-2] ** -0.5
        return jnp.asarray(rng.normal(mean, spread, shape.shape), shape.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def make_model(config: Config, seed: int = 0, scale: float = 1.0) -> TrainedModel:
    """A model with random weights, all drawn alike."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: rng.normal(0, scale, leaf.shape).astype(np.float32), model_shapes(config)
    )
    return TrainedModel(config, make_mesh(), params, step=100, progress={})


def with_settings(model: TrainedModel, **settings: Any) -> TrainedModel:
    """A model whose evaluation has these settings."""
    fields = {f"evaluate.{name}": value for name, value in settings.items()}
    return dataclasses.replace(model, config=model.config.with_fields(fields))
