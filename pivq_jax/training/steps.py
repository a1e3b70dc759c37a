"""The training state and the jitted steps on it: train, initialise the codebook, revive entries."""

import enum
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from pivq_jax.common.compilation import compiler_options
from pivq_jax.common.parallel import over_batch, replicated, shardings_of
from pivq_jax.data.images import images_to_float, images_to_uint8
from pivq_jax.model.quantizer import assign, initial_codebook, revive_dead
from pivq_jax.training.objective import Gradients, Metrics, Objective, Params, Phase

CODEBOOK = ("quantizer", "codebook")


class Draw(enum.IntEnum):
    """What a key is for; the numbers are part of what a seed means."""

    PARAMS = 0
    CODEBOOK = 1
    REVIVAL = 2
    LOSS = 3
    DISCRIMINATOR = 4


class TrainState(struct.PyTreeNode):
    """Everything that a checkpoint holds."""

    step: jax.Array  # int32 []: steps done
    params: Params  # f32
    ema_params: Params  # f32: exponential moving average, used for evaluation
    opt_state: optax.OptState
    uses: jax.Array  # int32 [K]: how often each entry was chosen since the last revival
    discriminator: Params = None  # f32; None in a run without adversarial losses
    discriminator_opt_state: optax.OptState = None


class Steps(NamedTuple):
    """The jitted functions of a run."""

    create: Callable[[], TrainState]
    train: jax.stages.Wrapped  # (state, images, frozen, phase) -> (state, metrics)
    latents: Callable[[Params, jax.Array], jax.Array]
    reconstruct: Callable[..., jax.Array]
    initialise: Callable[[TrainState, jax.Array], TrainState]
    revive: Callable[[TrainState, jax.Array], tuple[TrainState, jax.Array]]


def replace_codebook(state: TrainState, codebook: jax.Array, changed: jax.Array) -> TrainState:
    """Put new entries into the parameters; their averages follow, their moments are zeroed.

    Args:
        state: the training state.
        codebook: f32 [K, D].
        changed: bool [K], the entries that are new.
    """
    rows = changed[:, None]

    def is_codebook(path: tuple[Any, ...]) -> bool:
        return tuple(getattr(part, "key", None) for part in path[-2:]) == CODEBOOK

    def update(tree: Any, entries: jax.Array) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, x: jnp.where(rows, entries, x) if is_codebook(path) else x, tree
        )

    return state.replace(
        params=update(state.params, codebook),
        ema_params=update(state.ema_params, codebook),
        opt_state=update(state.opt_state, jnp.zeros_like(codebook)),
        uses=jnp.zeros_like(state.uses),
    )


def make_discriminator_optimizer(
    *, learning_rate: float, clip_norm: float
) -> optax.GradientTransformation:
    """Adam with the betas of GANs, (0.5, 0.9), at a constant rate, clipped by global norm."""
    return optax.chain(
        optax.clip_by_global_norm(clip_norm), optax.adam(learning_rate, b1=0.5, b2=0.9)
    )


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
    revive_threshold: float,
) -> Steps:
    """Jit the steps for one mesh; `parallel` decides what lies where on it.

    Keys are derived from (seed, step) alone, so a resumed run draws what the unbroken one drew.
    """
    model = objective.model

    def key_at(step: jax.Array, purpose: Draw) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), step)

    def apply(params: Params, images: jax.Array, method: str | None = None) -> Any:
        return model.apply({"params": params}, images, method=method)

    def create() -> TrainState:
        size = model.image_size
        images = jnp.zeros((mesh.size, size, size, 3))
        params = model.init(key_at(jnp.int32(0), Draw.PARAMS), images)["params"]
        judge = None
        if objective.adversary is not None:
            network = objective.adversary.discriminator
            judge = network.init(key_at(jnp.int32(0), Draw.DISCRIMINATOR), images)["params"]
        return TrainState(
            step=jnp.int32(0),
            params=params,
            ema_params=jax.tree.map(jnp.copy, params),
            opt_state=optimizer.init(params),
            uses=jnp.zeros(model.codebook_size, jnp.int32),
            discriminator=judge,
            discriminator_opt_state=None if judge is None else discriminator_optimizer.init(judge),
        )

    whole, rows = replicated(mesh), over_batch(mesh)
    jit = partial(jax.jit, compiler_options=compiler_options(mesh))
    placed = shardings_of(jax.eval_shape(create), mesh)

    def gradients(state: TrainState, images: jax.Array, frozen: Params, phase: Phase) -> Gradients:
        """Of the whole batch: at once, or as the mean over its parts, one after another."""
        of_part = partial(objective.gradients, state.params, state.discriminator, frozen)
        key = key_at(state.step, Draw.LOSS)
        if accumulation == 1:
            return of_part(images_to_float(images), key, phase)
        # Every n-th image forms a part, so that the parts are split over the devices as the batch.
        parts = images.reshape(-1, accumulation, *images.shape[1:]).swapaxes(0, 1)
        parts = jax.lax.with_sharding_constraint(parts, over_batch(mesh, axis=1))

        def add(total: Gradients, part: tuple[jax.Array, jax.Array]) -> tuple[Gradients, None]:
            number, images = part
            found = of_part(images_to_float(images), jax.random.fold_in(key, number), phase)
            return jax.tree.map(jnp.add, total, found), None

        shapes = jax.eval_shape(lambda: of_part(images_to_float(parts[0]), key, phase))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        total, _ = jax.lax.scan(add, zeros, (jnp.arange(accumulation), parts))
        mean = jax.tree.map(lambda x: x / accumulation, total._replace(uses=None))
        return mean._replace(uses=total.uses)

    @partial(jit, donate_argnums=0, static_argnames="phase", out_shardings=(placed, whole))
    def train(
        state: TrainState, images: jax.Array, frozen: Params, phase: Phase
    ) -> tuple[TrainState, Metrics]:
        """One optimizer step on images uint8 [B, H, W, 3]."""
        found = gradients(state, images, frozen, phase)
        updates, opt_state = optimizer.update(found.params, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # A young average follows fast, so that early evaluations are not of the initial weights.
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        if phase == Phase.ADVERSARIAL:
            updates, discriminator_opt_state = discriminator_optimizer.update(
                found.discriminator, state.discriminator_opt_state
            )
            state = state.replace(
                discriminator=optax.apply_updates(state.discriminator, updates),
                discriminator_opt_state=discriminator_opt_state,
            )
        metrics = {
            **found.metrics,
            "gradient_norm": optax.global_norm(found.params),
            "learning_rate": schedule(state.step),
        }
        if phase == Phase.ADVERSARIAL:
            metrics["discriminator_gradient_norm"] = optax.global_norm(found.discriminator)
        return state.replace(
            step=state.step + 1,
            params=params,
            ema_params=optax.incremental_update(params, state.ema_params, 1.0 - decay),
            opt_state=opt_state,
            uses=state.uses + found.uses,
        ), metrics

    def latents_of(params: Params, images: jax.Array) -> jax.Array:
        return apply(params, images_to_float(images), method="latents")

    @partial(jit, static_argnames="quantize", out_shardings=whole)
    def reconstruct(params: Params, images: jax.Array, quantize: bool) -> jax.Array:
        """images uint8 [B, H, W, 3] -> their reconstructions, uint8."""
        floats = images_to_float(images)
        if quantize:
            return images_to_uint8(apply(params, floats)[0])
        return images_to_uint8(apply(params, floats, method="autoencode"))

    @partial(jax.jit, donate_argnums=0, out_shardings=placed)
    def initialise(state: TrainState, latents: jax.Array) -> TrainState:
        """The codebook from latents f32 [M, D] of many batches, once, before quantization."""
        codebook = initial_codebook(latents, model.codebook_size, key_at(state.step, Draw.CODEBOOK))
        return replace_codebook(state, codebook, jnp.ones(model.codebook_size, bool))

    @partial(jit, donate_argnums=0, out_shardings=(placed, whole))
    def revive(state: TrainState, images: jax.Array) -> tuple[TrainState, jax.Array]:
        """Move dead entries onto latents of images uint8 [B, H, W, 3]; also how many."""
        codebook = state.params["quantizer"]["codebook"]
        latents = latents_of(state.params, images)
        columns, _ = assign(latents, codebook, model.kind, model.method, mesh)
        codebook, revived = revive_dead(
            codebook,
            state.uses,
            latents,
            columns,
            key_at(state.step, Draw.REVIVAL),
            revive_threshold,
        )
        return replace_codebook(state, codebook, revived), jnp.sum(revived)

    return Steps(
        create=jax.jit(create, out_shardings=placed),
        train=train,
        latents=jit(latents_of, in_shardings=(placed.params, rows), out_shardings=whole),
        reconstruct=reconstruct,
        initialise=initialise,
        revive=revive,
    )
