"""The training state and its steps: train, initialize the codebook, revive its entries.

Every step is a pure function of a state and plain arguments, independent of the devices;
`training.jitted` compiles them for a mesh.
"""

import enum
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Sharding

from pivq_jax.data.images import images_to_float, images_to_uint8
from pivq_jax.model.k_means import initial_codebook
from pivq_jax.model.pivq import PIVQ
from pivq_jax.model.quantizer import assign, revive_dead
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
    """The training state, as saved in checkpoints."""

    step: jax.Array  # int32 [], number of completed steps
    params: Params  # float32
    ema_params: Params  # float32, exponential moving average, used for evaluation
    opt_state: optax.OptState
    uses: jax.Array  # int32 [K], use count of each entry since the last revival
    discriminator: Params = None  # float32; None in a run without adversarial losses
    discriminator_opt_state: optax.OptState = None


def replace_codebook(state: TrainState, codebook: jax.Array, changed: jax.Array) -> TrainState:
    """Replaces codebook entries in the parameters and their averages, and zeroes their moments.

    `codebook` is float32 [K, D], and `changed`, bool [K], says which to take of it. All use counts
    are reset.
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
    """Returns Adam with betas (0.5, 0.9), usual for GANs, and clipping by global norm."""
    return optax.chain(
        optax.clip_by_global_norm(clip_norm), optax.adam(learning_rate, b1=0.5, b2=0.9)
    )


def key_at(seed: int, draw: Draw, step: jax.typing.ArrayLike) -> jax.Array:
    """Returns the PRNG key of one draw at one step.

    Keys depend only on the seed, the draw and the step, so a resumed run draws the same values as
    an uninterrupted one.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), draw), step)


def create_state(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    discriminator_optimizer: optax.GradientTransformation,
    *,
    seed: int,
) -> TrainState:
    """Creates the state before the first step, with randomly initialized networks."""
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
    recombination_scale: jax.typing.ArrayLike,
    accumulation: int = 1,
    parts_sharding: Sharding | None = None,
) -> Gradients:
    """Computes the gradients of a batch at once, or sequentially as the mean over its parts.

    Images are uint8 [B, H, W, 3], their parts, `accumulation` of them, uint8 [accumulation, B /
    accumulation, H, W, 3], with a sharding that is by default left to the compiler. Gradients and
    metrics are averaged over the parts, and use counts summed.
    """
    of_part = partial(
        objective.gradients,
        state.params,
        state.discriminator,
        frozen,
        recombination_scale=recombination_scale,
    )
    if accumulation == 1:
        return of_part(images_to_float(images), key, phase)
    # Each part takes every n-th image, so it is split over the devices like the batch.
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
    recombination_schedule: optax.Schedule,
    accumulation: int = 1,
    parts_sharding: Sharding | None = None,
) -> tuple[TrainState, Metrics]:
    """Runs one optimizer step on images uint8 [B, H, W, 3]; metrics are float32 [] each.

    The learning rate of `schedule` is for the log only. In the first steps, the averaged parameters
    decay faster than by `ema_decay`.
    """
    key = key_at(seed, Draw.LOSS, state.step)
    gradients = batch_gradients(
        objective,
        state,
        images,
        frozen,
        key,
        phase,
        recombination_scale=recombination_schedule(state.step),
        accumulation=accumulation,
        parts_sharding=parts_sharding,
    )
    updates, opt_state = optimizer.update(gradients.params, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # The first averages follow quickly, so that early evaluations do not see the initial weights.
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
    """Computes the latents float32 [B, N, D], before quantization, of images uint8 [B, H, W, 3]."""
    latents: Any = model.apply({"params": params}, images_to_float(images), method="latents")
    return latents


def reconstruct(params: Params, images: jax.Array, quantize: bool, *, model: PIVQ) -> jax.Array:
    """Reconstructs images uint8 [B, H, W, 3]; without quantization in the continuous phase."""
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
    """Initializes the codebook from latents float32 [M, D] of many batches, M >= K."""
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
    """Moves dead codebook entries to latents of a batch; see `revive_dead`.

    Returns their number, too.
    """
    codebook = state.params["quantizer"]["codebook"]
    latents = compute_latents(state.params, images, model=model)
    columns, _ = assign(latents, codebook, model.kind, model.matcher)
    key = key_at(seed, Draw.REVIVAL, state.step)
    codebook, revived = revive_dead(codebook, state.uses, latents, columns, key, threshold)
    return replace_codebook(state, codebook, revived), jnp.sum(revived)
