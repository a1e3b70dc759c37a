"""The training state and its steps: train, initialize the codebook, revive its entries.

Every step is a pure function of a `StepConfig`, a state and arrays, independent of the devices;
`make_steps` compiles them for a mesh.
"""

import dataclasses
import enum
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, Sharding

from pivq_jax.common.compilation import compiler_options
from pivq_jax.common.parallel import over_batch, replicated, shardings_of
from pivq_jax.common.weights import Params
from pivq_jax.data.images import images_to_float, images_to_uint8
from pivq_jax.model import quantizer
from pivq_jax.model.k_means import initial_codebook
from pivq_jax.model.pivq import PIVQ
from pivq_jax.training.objective import Gradients, Metrics, Objective, Phase

Arrays = dict[tuple[str, ...], np.ndarray]  # parameters, float32, by path
CODEBOOK = ("quantizer", "codebook")


class Draw(enum.IntEnum):
    """Purpose of a random key; changing a value changes every seeded run."""

    PARAMS = 0
    CODEBOOK = 1
    REVIVAL = 2
    LOSS = 3
    DISCRIMINATOR = 4


def key_at(seed: int, draw: Draw, step: jax.typing.ArrayLike) -> jax.Array:
    """Returns the PRNG key of one draw at one step, the same one in a run that was resumed."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), draw), step)


class TrainState(struct.PyTreeNode):
    """The training state, as saved in checkpoints."""

    step: jax.Array  # int32 [], number of completed steps
    params: Params  # float32
    ema_params: Params  # float32, exponential moving average, used for evaluation
    opt_state: optax.OptState
    uses: jax.Array  # int32 [K], use count of each entry since the last revival
    discriminator: Params | None = None  # float32; None in a run without adversarial losses
    discriminator_opt_state: optax.OptState | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepConfig:
    """What the steps of a run have in common; see `build.steps_from_config`."""

    objective: Objective
    optimizer: optax.GradientTransformationExtraArgs
    schedule: optax.Schedule  # learning rate, for the log
    discriminator_optimizer: optax.GradientTransformation
    recombination_schedule: optax.Schedule  # factor of the loss on recombined sets
    seed: int
    accumulation: int  # parts of a batch, one after another
    ema_decay: float
    revive_threshold: float


def create_state(config: StepConfig) -> TrainState:
    """Creates the state before the first step, with randomly initialized networks."""
    model, adversary, step = config.objective.model, config.objective.adversary, jnp.int32(0)
    images = jnp.zeros((1, model.image_size, model.image_size, 3))
    params = model.init(key_at(config.seed, Draw.PARAMS, step), images)["params"]
    discriminator = discriminator_opt_state = None
    if adversary is not None:
        key = key_at(config.seed, Draw.DISCRIMINATOR, step)
        discriminator = adversary.discriminator.init(key, images)["params"]
        discriminator_opt_state = config.discriminator_optimizer.init(discriminator)
    return TrainState(
        step=step,
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=config.optimizer.init(params),
        uses=jnp.zeros(model.codebook_size, jnp.int32),
        discriminator=discriminator,
        discriminator_opt_state=discriminator_opt_state,
    )


def with_arrays(state: TrainState, arrays: Arrays) -> TrainState:
    """Replaces some of the parameters, and their averages, of a state before the first step."""

    def replace(params: Params) -> Params:
        held = flatten_dict(params)
        # Copies, as steps reuse the memory of their state.
        placed = {
            path: jax.device_put(array, held[path].sharding, may_alias=False)
            for path, array in arrays.items()
        }
        return unflatten_dict(held | placed)

    return state.replace(params=replace(state.params), ema_params=replace(state.ema_params))


def train_step(
    config: StepConfig,
    state: TrainState,
    images: jax.Array,
    lpips_weights: Params | None,
    phase: Phase,
    parts_sharding: Sharding,
) -> tuple[TrainState, Metrics]:
    """Runs one optimizer step on images uint8 [B, H, W, 3]; metrics are float32 [] each."""
    gradients = batch_gradients(config, state, images, lpips_weights, phase, parts_sharding)
    freezes = phase != Phase.CONTINUOUS and config.objective.model.config.freezes_encoder
    frozen = "encoder" if freezes else ""  # see `PIVQ.__call__`
    updates, opt_state = config.optimizer.update(
        gradients.params, state.opt_state, state.params, frozen=frozen
    )
    if frozen:  # momentum would still move it
        updates[frozen] = jax.tree.map(jnp.zeros_like, updates[frozen])
    params = optax.apply_updates(state.params, updates)
    # The first averages follow quickly, so that early evaluations do not see the initial weights.
    decay = jnp.minimum(config.ema_decay, (1.0 + state.step) / (10.0 + state.step))
    metrics = {
        **gradients.metrics,
        "gradient_norm": optax.global_norm(gradients.params),
        "learning_rate": config.schedule(state.step),
    }
    if phase == Phase.ADVERSARIAL:
        updates, discriminator_opt_state = config.discriminator_optimizer.update(
            gradients.discriminator, state.discriminator_opt_state
        )
        state = state.replace(
            discriminator=optax.apply_updates(state.discriminator, updates),
            discriminator_opt_state=discriminator_opt_state,
        )
        metrics["discriminator_gradient_norm"] = optax.global_norm(gradients.discriminator)
    return state.replace(
        step=state.step + 1,
        params=params,
        ema_params=optax.incremental_update(params, state.ema_params, 1.0 - decay),
        opt_state=opt_state,
        uses=state.uses + gradients.uses,
    ), metrics


def batch_gradients(
    config: StepConfig,
    state: TrainState,
    images: jax.Array,
    lpips_weights: Params | None,
    phase: Phase,
    parts_sharding: Sharding,
) -> Gradients:
    """Computes the gradients of a batch at once, or sequentially as the mean over its parts."""
    key, count = key_at(config.seed, Draw.LOSS, state.step), config.accumulation
    scale = config.recombination_schedule(state.step)

    def of_part(images: jax.Array, key: jax.Array) -> Gradients:
        images = images_to_float(images)
        return config.objective.gradients(
            state.params, state.discriminator, lpips_weights, images, key, phase, scale
        )

    if count == 1:
        return of_part(images, key)
    # Each part takes every n-th image, so it is split over the devices like the batch.
    parts = images.reshape(-1, count, *images.shape[1:]).swapaxes(0, 1)
    parts = jax.lax.with_sharding_constraint(parts, parts_sharding)

    def add(total: Gradients, part: tuple[jax.Array, jax.Array]) -> tuple[Gradients, None]:
        number, images = part
        found = of_part(images, jax.random.fold_in(key, number))
        return jax.tree.map(jnp.add, total, found), None

    shapes = jax.eval_shape(of_part, parts[0], key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, (jnp.arange(count), parts))
    mean = jax.tree.map(lambda x: x / count, total._replace(uses=None))
    return mean._replace(uses=total.uses)


def compute_latents(model: PIVQ, params: Params, images: jax.Array) -> jax.Array:
    """Computes latents, float32 [B, N / stages, `latent_dim`], of images uint8 [B, H, W, 3]."""
    latents: Any = model.apply({"params": params}, images_to_float(images), method="latents")
    return latents


def reconstruct(model: PIVQ, params: Params, images: jax.Array, quantize: bool) -> jax.Array:
    """Reconstructs images uint8 [B, H, W, 3]; without quantization in the continuous phase."""
    method = None if quantize else "autoencode"
    made: Any = model.apply({"params": params}, images_to_float(images), method=method)
    return images_to_uint8(made[0])


def initialize_codebook(config: StepConfig, state: TrainState, latents: jax.Array) -> TrainState:
    """Initializes the codebook from the latents of many batches, stage by stage.

    They are float32 [M, B, N / stages, `latent_dim`], at least as many as a stage has entries.
    """
    model, key = config.objective.model, key_at(config.seed, Draw.CODEBOOK, state.step)
    dim, stages = model.config.code_dim, model.config.stages

    def quantize(own: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        flat = targets.reshape(-1, dim)
        entries = initial_codebook(flat, model.codebook_size // stages, own)
        # As many images at a time as in training, as their costs take gigabytes.
        parts = targets.reshape(len(latents) * config.accumulation, -1, *targets.shape[1:])
        indices = jax.lax.map(
            lambda part: quantizer.assign(part, entries, model.kind, model.matcher)[0], parts
        )
        return entries[indices.reshape(targets.shape[:2])], entries

    images = latents.reshape(-1, *latents.shape[2:])
    _, _, entries = quantizer.in_stages(images, dim, _stage_keys(key, stages), quantize)
    codebook = quantizer.join_stages(entries)
    return replace_codebook(state, codebook, jnp.ones(model.codebook_size, bool))


def _stage_keys(key: jax.Array, stages: int) -> jax.Array:
    return jnp.stack([key, *(jax.random.fold_in(key, stage) for stage in range(1, stages))])


def revive_entries(
    config: StepConfig, state: TrainState, images: jax.Array
) -> tuple[TrainState, jax.Array]:
    """Moves dead entries to latents of a batch; also returns their number. See `revive_dead`."""
    model, codebook = config.objective.model, state.params["quantizer"]["codebook"]
    stages, key = model.config.stages, key_at(config.seed, Draw.REVIVAL, state.step)
    latents = compute_latents(model, state.params, images)
    indices, _, targets, _ = quantizer.assign_in_stages(
        latents, codebook, model.kind, model.matcher, stages
    )
    in_parts = partial(quantizer.split_stages, stages=stages)
    parts = in_parts(codebook)
    revive = partial(quantizer.revive_dead, threshold=config.revive_threshold)
    revived, moved = jax.vmap(revive)(
        parts,
        in_parts(state.uses),
        in_parts(targets, axis=1),
        in_parts(indices, axis=1) - quantizer.first_entries(parts),
        _stage_keys(key, stages),
    )
    codebook, moved = quantizer.join_stages(revived), quantizer.join_stages(moved)
    return replace_codebook(state, codebook, moved), jnp.sum(moved)


def replace_codebook(state: TrainState, codebook: jax.Array, changed: jax.Array) -> TrainState:
    """Replaces entries in the parameters and their averages; zeroes their moments and all uses.

    `codebook` is float32 [K, D], and `changed`, bool [K], says which to take of it.
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


class Steps(NamedTuple):
    """The jitted steps of a run, for global arrays; what they return but states is on every device.

    `train`, `initialise` and `revive` donate their state, which must not be used afterwards.
    """

    create: jax.stages.Wrapped  # -> state
    # State, images, weights of the perceptual network or None, `Phase` -> state, metrics.
    train: jax.stages.Wrapped
    latents: Callable[[Params, jax.Array], jax.Array]  # parameters, images -> latents
    # Parameters, images, whether to quantize -> images.
    reconstruct: Callable[[Params, jax.Array, bool], jax.Array]
    initialise: Callable[[TrainState, jax.Array], TrainState]  # state, latents of batches -> state
    # State, images -> state, number of revived entries.
    revive: Callable[[TrainState, jax.Array], tuple[TrainState, jax.Array]]


def make_steps(config: StepConfig, mesh: Mesh) -> Steps:
    """Jits the functions above for a mesh; nothing is compiled before their first call."""
    model = config.objective.model
    create = partial(create_state, config)
    train = partial(train_step, config, parts_sharding=over_batch(mesh, axis=1))
    latents, rebuild = partial(compute_latents, model), partial(reconstruct, model)
    initialise, revive = partial(initialize_codebook, config), partial(revive_entries, config)
    whole, rows = replicated(mesh), over_batch(mesh)
    placed = shardings_of(jax.eval_shape(create), mesh)
    jit = partial(jax.jit, compiler_options=compiler_options(mesh))
    return Steps(
        create=jax.jit(create, out_shardings=placed),
        train=jit(train, donate_argnums=0, static_argnames="phase", out_shardings=(placed, whole)),
        latents=jit(latents, in_shardings=(placed.params, rows), out_shardings=whole),
        reconstruct=jit(rebuild, static_argnames="quantize", out_shardings=whole),
        initialise=jax.jit(initialise, donate_argnums=0, out_shardings=placed),
        revive=jit(revive, donate_argnums=0, out_shardings=(placed, whole)),
    )
