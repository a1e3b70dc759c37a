"""Training of the prior over sets of codes; see `sampling.prior`."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pivq_jax.codes.space import CodeSpace
from pivq_jax.common.cost import format_duration
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import read_object, write_json
from pivq_jax.common.lock import lock_directory
from pivq_jax.common.parallel import make_mesh, print_once, replicated
from pivq_jax.common.params import Params, checksum
from pivq_jax.common.stopping import Interrupted, stop_requests
from pivq_jax.config.sections import OptimizerConfig, PriorConfig
from pivq_jax.inference.saved_prior import DESCRIPTION, restore_prior
from pivq_jax.sampling.prior import (
    Prior,
    SetPrior,
    build_prior,
    initial_parameters,
    prior_loss,
)
from pivq_jax.training.checkpoints import Checkpoints
from pivq_jax.training.optimizer import make_optimizer

# Validations in a run; the weights of the best one are kept, as small data sets overfit.
VALIDATIONS = 20
# Random parts of each validation set per validation.
PARTS = 8
# Codes that a validation looks at together, which bounds its memory.
CODES_AT_ONCE = 2**15


class PriorState(NamedTuple):
    """What a checkpoint of the training holds."""

    step: jax.Array  # int32 []
    params: Params
    optimizer: optax.OptState
    best: Params  # parameters of the best validation so far
    best_bits: jax.Array  # float32 [], bits per validation set with them


def train_prior(
    settings: PriorConfig,
    space: CodeSpace,
    codebook: jax.Array,
    train: np.ndarray,
    validation: np.ndarray,
    directory: Path,
    seed: int,
    model_step: int,
    data: str,
) -> Prior:
    """Trains a prior from the newest checkpoint in `directory`, if any; returns the best validated.

    Sets are int32 [M, N], the codebook is float32 [K, D], `data` identifies the images. Ctrl-C and
    SIGTERM raise Interrupted, once a checkpoint is written.
    """
    images = {"data": data, "codes": checksum(train)}
    expected = {"model_step": model_step, "codebook": checksum(codebook), **images, **settings}
    network = build_prior(space, settings)
    everywhere = replicated(make_mesh())
    create, step_of, validate = _programs(network, settings, seed)
    train, validation = (jax.device_put(x, everywhere) for x in (train, validation))
    every = max(1, settings.steps // VALIDATIONS)

    with (
        lock_directory(directory) as lock,
        Checkpoints(directory) as checkpoints,
        stop_requests() as asked,
    ):
        newest = checkpoints.latest_step()
        description = read_object(directory / DESCRIPTION)
        # The same images, of which elsewhere some codes differ, or the same codes, with labels now.
        if any(description.get(name) == value for name, value in images.items()):
            description |= images
        if newest is not None and description != expected:
            raise InputError(
                f"{directory} holds a prior of other codes or settings: delete {directory} to train"
                " anew"
            )
        if jax.process_index() == 0:
            write_json(directory / DESCRIPTION, expected)
        if newest is None:
            state = jax.jit(create, out_shardings=everywhere)()
        else:
            state = restore_prior(checkpoints, jax.eval_shape(create), directory)
        first, started = int(state.step), time.perf_counter()
        if stop := asked():
            raise Interrupted(stop, first)
        for step in range(first + 1, settings.steps + 1):
            lock.check()
            state, bits = step_of(state, train)
            stop, due = asked(), step % every == 0 or step == settings.steps
            if (due or stop) and not np.isfinite(float(bits)):
                raise FloatingPointError(
                    f"the bits of the prior are {float(bits)} at step {step}: lower"
                    " prior.learning_rate"
                )
            if due:
                state = validate(state, validation)
                seconds_left = (
                    (time.perf_counter() - started) / (step - first) * (settings.steps - step)
                )
                print_once(
                    f"step {step:>6}/{settings.steps}  {float(bits):6.2f} bits a set,"
                    f" best of validation {float(state.best_bits):6.2f}"
                    f"  ETA {format_duration(seconds_left)}"
                )
            if due or stop:
                checkpoints.save(step, state, {})
            if stop:
                checkpoints.wait()
                raise Interrupted(stop, step)
    return Prior(network, state.best, float(state.best_bits))


def _programs(
    network: SetPrior, settings: PriorConfig, seed: int
) -> tuple[Callable[[], PriorState], jax.stages.Wrapped, jax.stages.Wrapped]:
    """Returns the first state, a step and a validation, as functions of the state and the sets."""
    rules = OptimizerConfig(
        name="muon",
        learning_rate=settings.learning_rate,
        muon_learning_rate=4 * settings.learning_rate,
        momentum=0.95,
        warmup=min(100, settings.steps // 10) / settings.steps,
        weight_decay=settings.weight_decay,
        clip_norm=1.0,
    )
    optimizer = make_optimizer(rules, settings.steps)

    def create() -> PriorState:
        params = initial_parameters(network, jax.random.key(seed))
        moments = optimizer.init(params)
        return PriorState(jnp.int32(0), params, moments, params, jnp.float32(jnp.inf))

    @jax.jit
    def step(state: PriorState, codes: jax.Array) -> tuple[PriorState, jax.Array]:
        """One step on a random batch; also returns its mean bits."""
        key_rows, key_parts = jax.random.split(jax.random.fold_in(jax.random.key(seed), state.step))
        rows = jax.random.randint(key_rows, (settings.batch_size,), 0, len(codes))
        bits, gradients = jax.value_and_grad(
            lambda params: jnp.mean(prior_loss(network, params, codes[rows], key_parts))
        )(state.params)
        updates, moments = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return state._replace(step=state.step + 1, params=params, optimizer=moments), bits

    @jax.jit
    def validate(state: PriorState, codes: jax.Array) -> PriorState:
        """Keeps the current parameters if they are the best so far, on the same parts each time."""
        at_once = max(1, CODES_AT_ONCE // codes.shape[1])
        loss = partial(prior_loss, network, state.params, codes, at_once=at_once)
        keys = jax.random.split(jax.random.key(seed), PARTS)
        bits = jnp.mean(jax.lax.map(lambda key: jnp.mean(loss(key)), keys))
        better = bits < state.best_bits
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), state.params, state.best)
        return state._replace(best=best, best_bits=jnp.where(better, bits, state.best_bits))

    return create, step, validate
