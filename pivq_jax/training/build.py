"""Builds data, losses and steps from a config; other training modules take plain arguments."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from pivq_jax.common.errors import InputError
from pivq_jax.common.parallel import map_over_batch, replicated
from pivq_jax.common.weights import Params
from pivq_jax.config.fields import Config
from pivq_jax.data import Dataset, load_dataset
from pivq_jax.losses.perceptual import load_lpips, lpips
from pivq_jax.model.discriminator import Discriminator
from pivq_jax.model.pivq import PIVQ, pivq_from_config
from pivq_jax.sampling import CodeSpace
from pivq_jax.training.objective import Adversary, Objective, Phase, recombine_pairs
from pivq_jax.training.optimizer import (
    learning_rate_schedule,
    make_discriminator_optimizer,
    make_optimizer,
)
from pivq_jax.training.steps import StepConfig, Steps, make_steps

__all__ = ["dataset_from_config"]


def dataset_from_config(config: Config) -> Dataset:
    """Builds or opens the data set of a config, with at least two training images.

    Raises:
        InputError: if the data is missing or damaged, or has fewer than two training images; see
            `load_dataset`.
    """
    data = config.data
    dataset = load_dataset(data.name, image_size=data.image_size, path=data.path, group=data.group)
    if (count := len(dataset.train)) < 2:
        total = count + len(dataset.validation) + len(dataset.test)
        raise InputError(
            f"{data.path or data.name} has {total} images, only {count} of them for training, too"
            " few to recombine two: add images"
        )
    return dataset


def objective_from_config(config: Config, model: PIVQ, mesh: Mesh) -> Objective:
    """Builds the loss of a config, which recombines the images of each device on that device."""
    weights, settings, adversary = config.loss, config.adversarial, None
    perceptual = partial(lpips, network=weights.perceptual_network) if weights.perceptual else None
    if settings.is_used:
        dtype = jnp.dtype(config.model.dtype)
        adversary = Adversary(Discriminator(settings.channels, settings.layers, dtype), settings)
    return Objective(
        model=model,
        weights=weights,
        recombine=map_over_batch(partial(recombine_pairs, space=CodeSpace.of(config)), mesh),
        perceptual=perceptual,
        adversary=adversary,
        noise=config.quantizer.noise,
    )


def lpips_weights_from_config(config: Config, mesh: Mesh) -> Params | None:
    """Loads the weights of the perceptual loss, if it is used, a full copy for each device."""
    if not config.loss.perceptual:
        return None
    weights = load_lpips(config.loss.perceptual_network, config.loss.perceptual_weights)
    return jax.device_put(weights, replicated(mesh))


def phase_at(config: Config, step: int) -> Phase:
    """Returns the phase of the training step that follows `step` completed steps."""
    settings = config.adversarial
    if step < config.quantizer.init_step:
        return Phase.CONTINUOUS
    if settings.is_used and step >= settings.start_step:
        return Phase.ADVERSARIAL
    return Phase.QUANTIZED


def recombination_schedule(config: Config) -> optax.Schedule:
    """Returns the factor of the weight of the loss on recombined sets by step.

    It rises linearly from 0 at `quantizer.init_step` to 1, so that the decoder learns the codes
    first: at full weight from the start it may stop using a code, which is then lost.
    """
    begin = config.quantizer.init_step
    steps = config.loss.recombination_warmup * max(0, config.train.steps - begin)

    def factor(step: jax.typing.ArrayLike) -> jax.Array:
        return jnp.clip((step - begin) / steps, 0.0, 1.0) if steps else jnp.float32(1)

    return factor


def model_from_config(config: Config, mesh: Mesh) -> PIVQ:
    """Builds the networks of a config, which match the images of each device on that device."""
    return pivq_from_config(config, partial(map_over_batch, mesh=mesh))


def steps_from_config(config: Config, mesh: Mesh) -> Steps:
    """Builds the steps of a config for a mesh; nothing is compiled before their first call."""
    model = model_from_config(config, mesh)
    step_config = StepConfig(
        objective=objective_from_config(config, model, mesh),
        optimizer=make_optimizer(config.optimizer, config.train.steps, mesh, config.model.dtype),
        schedule=learning_rate_schedule(config.optimizer, config.train.steps),
        discriminator_optimizer=make_discriminator_optimizer(
            config.adversarial.learning_rate, config.optimizer.clip_norm
        ),
        recombination_schedule=recombination_schedule(config),
        seed=config.seed,
        accumulation=config.train.accumulation,
        ema_decay=config.train.ema_decay,
        revive_threshold=config.quantizer.revive_threshold,
    )
    return make_steps(step_config, mesh)
