"""Explorers of untrained models."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.common.parallel import make_mesh
from pivq_jax.data import load_dataset
from pivq_jax.data.images import images_to_float
from pivq_jax.data.sources import first_images
from pivq_jax.explore.engine import Engine
from pivq_jax.inference import TrainedModel
from pivq_jax.model.pivq import pivq_from_config


def untrained_engine(config: Any) -> Engine:
    """An engine of a model with random weights, of 64 training images of noise."""
    data = load_dataset("random", image_size=config.data.image_size)
    data = dataclasses.replace(data, train=first_images(data.train, 64))
    images = images_to_float(np.stack([data.train[i]["image"] for i in range(4)]))
    config = config.with_fields({"evaluate.batch_size": 1})  # the page encodes one, too
    shapes = jax.eval_shape(pivq_from_config(config).init, jax.random.key(0), images)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(0, 0.25, s.shape).astype(np.float32), shapes)
    model = TrainedModel(config, make_mesh(), params, step=1, progress={})
    # Latents of images as entries: with random ones all images would have about the same codes.
    latents = [model.encode_with_latents(image[None])[1][0] for image in images]
    params["quantizer"]["codebook"] = jnp.concatenate(latents)[: config.quantizer.codebook_size]
    return Engine(model, data)
