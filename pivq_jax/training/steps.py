"""The training state and the steps on it: train, initialise the codebook, revive its entries.

Every step is a function of a state and of plain arguments. `make_steps` binds these, jits the
steps and says which array lies where; nothing else here knows that there are several devices.
"""

import enum
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh, Sharding

from pivq_jax.common.compilation import compiler_options
from pivq_jax.common.parallel import over_batch, replicated, shardings_of
from pivq_jax.data.images import images_to_float, images_to_uint8
from pivq_jax.model.pivq import PIVQ
from pivq_jax.model.quantizer import assign, initial_codebook, revive_dead
from pivq_jax.training.objective import Gradients, Metrics, Objective, Params, Phase

CODEBOOK = ("quantizer", "codebook")


class Draw(enum.IntEnum):
    """Purpose of a random key; changing a value changes every seeded run."""

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
    """The jitted steps of a run; `create` and `train` can also be lowered without being run."""

    create: jax.stages.Wrapped  # () -> state
    train: jax.stages.Wrapped  # (state, images, frozen, phase) -> (state, metrics)
    latents: Callable[[Params, jax.Array], jax.Array]  # (params, images)
    reconstruct: Callable[[Params, jax.Array, bool], jax.Array]  # (params, images, quantize)
    initialise: Callable[[TrainState, jax.Array], TrainState]  # (state, latents)
    revive: Callable[[TrainState, jax.Array], tuple[TrainState, jax.Array]]  # (state, images)


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


def key_at(seed: int, draw: Draw, step: jax.typing.ArrayLike) -> jax.Array:
    """The PRNG key of one draw at one step.

    Keys are derived from the seed and the step alone, so a resumed run draws what an unbroken one
    would have drawn.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), draw), step)


def create_state(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    discriminator_optimizer: optax.GradientTransformation,
    *,
    seed: int,
) -> TrainState:
    """The state before the first step, with randomly initialised networks.

    Args:
        objective: its model and, if there is one, its discriminator are initialised.
        optimizer: of the model.
        discriminator_optimizer: of the discriminator.
        seed: of the run.
    """
    model, step = objective.model, jnp.int32(0)
    images = jnp.zeros((1, model.image_size, model.image_size, 3))
    params = model.init(key_at(seed, Draw.PARAMS, step), images)["params"]
    discriminator = None
    if objective.adversary is not None:
        network = objective.adversary.discriminator
        discriminator = network.init(key_at(seed, Draw.DISCRIMINATOR, step), images)["params"]
    return TrainState(
        step=step,
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        uses=jnp.zeros(model.codebook_size, jnp.int32),
        discriminator=discriminator,
        discriminator_opt_state=(
            None if discriminator is None else discriminator_optimizer.init(discriminator)
        ),
    )


def batch_gradients(
    objective: Objective,
    state: TrainState,
    images: jax.Array,
    frozen: Params,
    key: jax.Array,
    phase: Phase,
    *,
    accumulation: int = 1,
    parts_sharding: Sharding | None = None,
) -> Gradients:
    """Gradients of a whole batch: at once, or as the mean over parts of it, one after another.

    Args:
        objective: the loss.
        state: holds the parameters.
        images: uint8 [B, H, W, 3].
        frozen: the perceptual network's weights.
        key: a PRNG key.
        phase: of the run.
        accumulation: number of parts; divides B.
        parts_sharding: if set, where the parts uint8 [accumulation, B / accumulation, H, W, 3] lie.

    Returns:
        gradients and metrics averaged over the parts, code counts summed.
    """
    of_part = partial(objective.gradients, state.params, state.discriminator, frozen)
    if accumulation == 1:
        return of_part(images_to_float(images), key, phase)
    # Every n-th image forms a part, so that the parts are split over the devices as the batch.
    parts = images.reshape(-1, accumulation, *images.shape[1:]).swapaxes(0, 1)
    if parts_sharding is not None:
        parts = jax.lax.with_sharding_constraint(parts, parts_sharding)

    def add(total: Gradients, part: tuple[jax.Array, jax.Array]) -> tuple[Gradients, None]:
        number, images = part
        found = of_part(images_to_float(images), jax.random.fold_in(key, number), phase)
        return jax.tree.map(jnp.add, total, found), None

    shapes = jax.eval_shape(lambda: of_part(images_to_float(parts[0]), key, phase))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, (jnp.arange(accumulation), parts))
    mean = jax.tree.map(lambda x: x / accumulation, total._replace(uses=None))
    return mean._replace(uses=total.uses)


def train_step(
    state: TrainState,
    images: jax.Array,
    frozen: Params,
    phase: Phase,
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    discriminator_optimizer: optax.GradientTransformation,
    seed: int,
    ema_decay: float,
    accumulation: int = 1,
    parts_sharding: Sharding | None = None,
) -> tuple[TrainState, Metrics]:
    """One optimizer step.

    Args:
        state: the training state.
        images: uint8 [B, H, W, 3].
        frozen: the perceptual network's weights, None if it is not used.
        phase: of the run.
        objective: the loss.
        optimizer: of the model.
        schedule: learning rate to log, by step.
        discriminator_optimizer: of the discriminator; used in the adversarial phase only.
        seed: of the run.
        ema_decay: of the averaged parameters, approached from below.
        accumulation: number of parts that the batch is computed in, see `batch_gradients`.
        parts_sharding: see `batch_gradients`.

    Returns:
        the state after the step, and metrics, float32 [] each.
    """
    key = key_at(seed, Draw.LOSS, state.step)
    gradients = batch_gradients(
        objective,
        state,
        images,
        frozen,
        key,
        phase,
        accumulation=accumulation,
        parts_sharding=parts_sharding,
    )
    updates, opt_state = optimizer.update(gradients.params, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # A young average follows fast, so that early evaluations are not of the initial weights.
    decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
    if phase == Phase.ADVERSARIAL:
        updates, discriminator_opt_state = discriminator_optimizer.update(
            gradients.discriminator, state.discriminator_opt_state
        )
        state = state.replace(
            discriminator=optax.apply_updates(state.discriminator, updates),
            discriminator_opt_state=discriminator_opt_state,
        )
    metrics = {
        **gradients.metrics,
        "gradient_norm": optax.global_norm(gradients.params),
        "learning_rate": schedule(state.step),
    }
    if phase == Phase.ADVERSARIAL:
        metrics["discriminator_gradient_norm"] = optax.global_norm(gradients.discriminator)
    return state.replace(
        step=state.step + 1,
        params=params,
        ema_params=optax.incremental_update(params, state.ema_params, 1.0 - decay),
        opt_state=opt_state,
        uses=state.uses + gradients.uses,
    ), metrics


def compute_latents(params: Params, images: jax.Array, *, model: PIVQ) -> jax.Array:
    """Latents f32 [B, N, D] of images uint8 [B, H, W, 3]."""
    latents: Any = model.apply({"params": params}, images_to_float(images), method="latents")
    return latents


def reconstruct(params: Params, images: jax.Array, quantize: bool, *, model: PIVQ) -> jax.Array:
    """Reconstructions of images, both uint8 [B, H, W, 3].

    Args:
        params: of the model.
        images: the originals.
        quantize: if False, latents are decoded as they are, as before the codebook's start.
        model: the autoencoder.
    """
    variables, floats = {"params": params}, images_to_float(images)
    made: Any = (
        model.apply(variables, floats)[0]
        if quantize
        else model.apply(variables, floats, method="autoencode")
    )
    return images_to_uint8(made)


def initialise_codebook(
    state: TrainState, latents: jax.Array, *, model: PIVQ, seed: int
) -> TrainState:
    """The state with a codebook made from latents, once, before quantization begins.

    Args:
        state: the training state.
        latents: f32 [M, D], of many batches.
        model: the autoencoder.
        seed: of the run.
    """
    key = key_at(seed, Draw.CODEBOOK, state.step)
    codebook = initial_codebook(latents, model.codebook_size, key)
    return replace_codebook(state, codebook, jnp.ones(model.codebook_size, bool))


def revive_entries(
    state: TrainState,
    images: jax.Array,
    *,
    model: PIVQ,
    seed: int,
    threshold: float,
) -> tuple[TrainState, jax.Array]:
    """Moves dead codebook entries onto latents of a batch.

    Args:
        state: the training state.
        images: uint8 [B, H, W, 3].
        model: the autoencoder.
        seed: of the run.
        threshold: see `revive_dead`.

    Returns:
        the new state, and the number of entries that were moved, int32 [].
    """
    codebook = state.params["quantizer"]["codebook"]
    latents = compute_latents(state.params, images, model=model)
    columns, _ = assign(latents, codebook, model.kind, model.matcher)
    key = key_at(seed, Draw.REVIVAL, state.step)
    codebook, revived = revive_dead(codebook, state.uses, latents, columns, key, threshold)
    return replace_codebook(state, codebook, revived), jnp.sum(revived)


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
    """Binds the steps to their settings and jits them for one mesh.

    `common.parallel` decides what lies where on the mesh. Steps that return a state reuse the
    memory of the one that they are given.
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
