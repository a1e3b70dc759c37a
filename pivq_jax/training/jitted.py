"""The steps of a run, jitted and sharded for the devices of a mesh."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh

from pivq_jax.common.compilation import compiler_options
from pivq_jax.common.parallel import over_batch, replicated, shardings_of
from pivq_jax.training.objective import Objective, Params
from pivq_jax.training.steps import (
    TrainState,
    compute_latents,
    create_state,
    initialise_codebook,
    reconstruct,
    revive_entries,
    train_step,
)

__all__ = ["Steps"]


class Steps(NamedTuple):
    """The jitted steps of a run, for global arrays on the devices of a mesh.

    `train`, `initialise` and `revive` donate their state, which must not be used afterwards.
    `create` and `train` can also be lowered without being run.

    Attributes:
        create: function without arguments that returns the initial state; see `create_state`.
        train: function of a state, images uint8 [B, H, W, 3], the weights of the perceptual network
            or None, and a static `Phase`, that returns the next state and metrics, float32 [] each;
            see `train_step`.
        latents: function of parameters and images uint8 [B, H, W, 3] that returns latents
            float32 [B, N, D] on every device; see `compute_latents`.
        reconstruct: function of parameters, images uint8 [B, H, W, 3] and a static bool, whether to
            quantize, that returns images uint8 [B, H, W, 3] on every device; see `reconstruct`.
        initialise: function of a state and latents float32 [M, D] that returns the state with a new
            codebook; see `initialise_codebook`.
        revive: function of a state and images uint8 [B, H, W, 3] that returns the state and the
            number of revived entries, int32 []; see `revive_entries`.
    """

    create: jax.stages.Wrapped
    train: jax.stages.Wrapped
    latents: Callable[[Params, jax.Array], jax.Array]
    reconstruct: Callable[[Params, jax.Array, bool], jax.Array]
    initialise: Callable[[TrainState, jax.Array], TrainState]
    revive: Callable[[TrainState, jax.Array], tuple[TrainState, jax.Array]]


def make_steps(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    discriminator_optimizer: optax.GradientTransformation,
    *,
    mesh: Mesh,
    seed: int,
    accumulation: int,
    ema_decay: float,
    recombination_schedule: optax.Schedule,
    revive_threshold: float,
) -> Steps:
    """Binds the steps to their settings and jits them for a mesh.

    `common.parallel` decides how arrays are sharded. Steps that take and return a state donate the
    memory of their argument. The learning rate of `schedule` is for the log only.
    """
    model = objective.model
    create = partial(create_state, objective, optimizer, discriminator_optimizer, seed=seed)
    train = partial(
        train_step,
        objective=objective,
        optimizer=optimizer,
        schedule=schedule,
        discriminator_optimizer=discriminator_optimizer,
        seed=seed,
        ema_decay=ema_decay,
        recombination_schedule=recombination_schedule,
        accumulation=accumulation,
        parts_sharding=over_batch(mesh, axis=1),
    )
    latents = partial(compute_latents, model=model)
    initialise = partial(initialise_codebook, model=model, seed=seed)
    revive = partial(revive_entries, model=model, seed=seed, threshold=revive_threshold)

    whole, rows = replicated(mesh), over_batch(mesh)
    placed = shardings_of(jax.eval_shape(create), mesh)
    jit = partial(jax.jit, compiler_options=compiler_options(mesh))
    return Steps(
        create=jax.jit(create, out_shardings=placed),
        train=jit(train, donate_argnums=0, static_argnames="phase", out_shardings=(placed, whole)),
        latents=jit(latents, in_shardings=(placed.params, rows), out_shardings=whole),
        reconstruct=jit(
            partial(reconstruct, model=model), static_argnames="quantize", out_shardings=whole
        ),
        initialise=jax.jit(initialise, donate_argnums=0, out_shardings=placed),
        revive=jit(revive, donate_argnums=0, out_shardings=(placed, whole)),
    )
