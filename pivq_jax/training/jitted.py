"""The steps of a run, jitted and sharded for the devices of a mesh."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from pivq_jax.common.compilation import compiler_options
from pivq_jax.common.parallel import over_batch, replicated, shardings_of
from pivq_jax.training.objective import Params
from pivq_jax.training.steps import (
    Recipe,
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
            float32 [B, N / stages, `latent_dim`] on every device; see `compute_latents`.
        reconstruct: function of parameters, images uint8 [B, H, W, 3] and a static bool, whether to
            quantize, that returns images uint8 [B, H, W, 3] on every device; see `reconstruct`.
        initialise: function of a state and latents of M images that returns the state with a new
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


def make_steps(recipe: Recipe, mesh: Mesh) -> Steps:
    """Jits the steps of a recipe for a mesh; nothing is compiled before their first call."""
    model = recipe.objective.model
    create = partial(create_state, recipe)
    train = partial(train_step, recipe, parts_sharding=over_batch(mesh, axis=1))
    whole, rows = replicated(mesh), over_batch(mesh)
    placed = shardings_of(jax.eval_shape(create), mesh)
    jit = partial(jax.jit, compiler_options=compiler_options(mesh))
    return Steps(
        create=jax.jit(create, out_shardings=placed),
        train=jit(train, donate_argnums=0, static_argnames="phase", out_shardings=(placed, whole)),
        latents=jit(
            partial(compute_latents, model),
            in_shardings=(placed.params, rows),
            out_shardings=whole,
        ),
        reconstruct=jit(
            partial(reconstruct, model), static_argnames="quantize", out_shardings=whole
        ),
        initialise=jax.jit(
            partial(initialise_codebook, recipe), donate_argnums=0, out_shardings=placed
        ),
        revive=jit(
            partial(revive_entries, recipe), donate_argnums=0, out_shardings=(placed, whole)
        ),
    )
