"""Explorers of untrained models."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from pivq_jax.data import load_dataset
from pivq_jax.data.images import images_to_float
from pivq_jax.data.sources import first_images
from pivq_jax.explore.engine import Engine
from tests.parameters import make_model


def untrained_engine(config: Any) -> Engine:
    """An engine of a model with random weights, of 64 training images of noise."""
    data = load_dataset("random", image_size=config.data.image_size)
    data = dataclasses.replace(data, train=first_images(data.train, 64))
    images = images_to_float(np.stack([data.train[i]["image"] for i in range(4)]))
    # The page encodes one, too.
    model = make_model(config.with_fields({"evaluate.batch_size": 1}), scale=0.25)
    # Latents of images as entries: with random ones all images would have about the same codes.
    latents = [model.encode_with_latents(image[None])[1][0] for image in images]
    codebook = jnp.concatenate(latents)[: config.quantizer.codebook_size]
    model.params["quantizer"]["codebook"] = codebook
    return Engine(model, data)
