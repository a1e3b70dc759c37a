"""What a config describes, built: data, losses, steps. All else takes plain arguments."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from pivq_jax.common.errors import InputError
from pivq_jax.common.parallel import map_over_batch, replicated
from pivq_jax.config.fields import Config
from pivq_jax.data import Dataset, load_dataset
from pivq_jax.losses.perceptual import lpips
from pivq_jax.losses.perceptual_weights import load_lpips
from pivq_jax.model.discriminator import Discriminator
from pivq_jax.model.pivq import PIVQ, pivq_from_config
from pivq_jax.training.adversary import Adversary
from pivq_jax.training.objective import LossWeights, Objective, Phase, recombine_pairs
from pivq_jax.training.optimizer import make_optimizer
from pivq_jax.training.steps import Steps, make_discriminator_optimizer, make_steps


def dataset_from_config(config: Config) -> Dataset:
    """The data set that a config names, built or opened; with at least two training images."""
    data = config.data
    dataset = load_dataset(data.name, image_size=data.image_size, path=data.path)
    if len(dataset.train) < 2:
        raise InputError(
            f"{data.path or data.name} gives {len(dataset.train)} training image(s), too few to"
            " recombine two: add images"
        )
    return dataset


def objective_from_config(
    config: Config,
    model: PIVQ,
    map_rows: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function,
) -> Objective:
    """The loss that a config describes; `map_rows` is as in `pivq_from_config`."""
    weights = dict(config.loss)
    network = weights.pop("perceptual_network")
    weights.pop("perceptual_weights")
    perceptual = partial(lpips, network=network) if weights["perceptual"] else None
    recombine = partial(recombine_pairs, kind=model.kind, method=config.quantizer.method)
    return Objective(
        model,
        LossWeights(**weights),
        map_rows(recombine),
        perceptual,
        adversary_from_config(config),
    )


def adversary_from_config(config: Config) -> Adversary | None:
    """The discriminator that a config describes, or None where nothing is judged."""
    settings = config.adversarial
    if not settings.weight and not settings.recombined_weight:
        return None
    dtype = jnp.dtype(config.model.dtype)
    return Adversary(
        Discriminator(settings.channels, settings.layers, dtype),
        settings.weight,
        settings.recombined_weight,
        settings.max_adaptive_weight,
        tuple(filter(None, settings.augmentations.split(","))),
    )


def frozen_from_config(config: Config, mesh: Mesh) -> Any:
    """The perceptual network's weights, whole on every device; None where it is not used.

    Raises:
        InputError: the file is missing or is not what it should be.
    """
    if not config.loss.perceptual:
        return None
    weights = load_lpips(config.loss.perceptual_network, config.loss.perceptual_weights)
    return jax.device_put(weights, replicated(mesh))


def phase_at(config: Config, step: int) -> Phase:
    """The part of the run that the step after `step` steps belongs to."""
    settings = config.adversarial
    if step < config.quantizer.init_step:
        return Phase.CONTINUOUS
    judges = settings.weight > 0 or settings.recombined_weight > 0
    return Phase.ADVERSARIAL if judges and step >= settings.start_step else Phase.QUANTIZED


def steps_from_config(config: Config, mesh: Mesh) -> Steps:
    """The jitted steps that a config describes, for the devices of a mesh."""
    map_rows = partial(map_over_batch, mesh=mesh)
    objective = objective_from_config(config, pivq_from_config(config, map_rows), map_rows)
    optimizer, schedule = make_optimizer(steps=config.train.steps, **config.optimizer, mesh=mesh)
    discriminator_optimizer = make_discriminator_optimizer(
        learning_rate=config.adversarial.learning_rate, clip_norm=config.optimizer.clip_norm
    )
    return make_steps(
        objective,
        optimizer,
        schedule,
        discriminator_optimizer,
        mesh=mesh,
        seed=config.seed,
        accumulation=config.train.accumulation,
        ema_decay=config.train.ema_decay,
        revive_threshold=config.quantizer.revive_threshold,
    )
