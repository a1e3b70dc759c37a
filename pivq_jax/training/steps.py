"""The training state and its steps: train, initialize the codebook, revive its entries."""

import enum
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from pivq_jax.common.compilation import compiler_options
from pivq_jax.common.parallel import over_batch, replicated, shardings_of
from pivq_jax.common.params import Params
from pivq_jax.config.fields import Config
from pivq_jax.config.sections import component_side
from pivq_jax.data.images import images_to_float, images_to_uint8
from pivq_jax.model.components import principal_components, shrunk
from pivq_jax.model.k_means import initial_codebook, own_entries
from pivq_jax.model.quantizer import assign, revive_dead
from pivq_jax.training.objective import (
    CODING,
    Gradients,
    Metrics,
    Networks,
    Objective,
    Phase,
    recombination_factor,
)
from pivq_jax.training.optimizer import learning_rate_schedule, make_optimizer

Arrays = dict[tuple[str, ...], np.ndarray]  # parameters, float32, by path
CODEBOOK = ("quantizer", "codebook")


class Draw(enum.IntEnum):
    """Purpose of a random key; changing a value changes every seeded run."""

    PARAMS = 0
    CODEBOOK = 1
    REVIVAL = 2
    LOSS = 3
    DISCRIMINATOR = 4
    COMPONENTS = 5


class TrainState(struct.PyTreeNode):
    """The training state, as saved in checkpoints."""

    step: jax.Array  # int32 [], number of completed steps
    params: Params  # float32
    ema_params: Params  # float32, exponential moving average, used for evaluation
    opt_state: optax.OptState
    uses: jax.Array  # int32 [K], use count of each entry since the last revival
    discriminator: Params | None = None  # float32; None in a run without adversarial losses
    discriminator_opt_state: optax.OptState | None = None


class Steps:
    """The jitted steps of a run, for global arrays; what they return but states is on every device.

    `train`, `initialise` and `revive` donate their state, which must not be used afterwards.
    Nothing is compiled before its first call. Results do not depend on the devices.
    """

    def __init__(self, config: Config, mesh: Mesh) -> None:
        self._config, self._objective = config, Objective(config, mesh)
        settings, steps = config.optimizer, config.train.steps
        self._optimizer = make_optimizer(settings, steps, mesh, config.model.dtype)
        self._schedule = learning_rate_schedule(settings, steps)  # for the log
        self._discriminator_optimizer = optax.chain(  # with the betas that are usual for GANs
            optax.clip_by_global_norm(settings.clip_norm),
            optax.adam(config.adversarial.learning_rate, b1=0.5, b2=0.9),
        )
        whole, rows = replicated(mesh), over_batch(mesh)
        self._over_parts = over_batch(mesh, axis=1)
        placed = shardings_of(jax.eval_shape(self._create), mesh)
        jit = partial(jax.jit, compiler_options=compiler_options(mesh))
        self.create = jax.jit(self._create, out_shardings=placed)
        self.train = jit(
            self._train, donate_argnums=0, static_argnames="phase", out_shardings=(placed, whole)
        )
        self.find_components = jax.jit(
            self._find_components, donate_argnums=0, out_shardings=placed
        )
        self.latents = jit(self._latents, in_shardings=(placed.params, rows), out_shardings=whole)
        self.reconstruct = jit(self._reconstruct, static_argnames="quantize", out_shardings=whole)
        self.initialise = jax.jit(self._initialise, donate_argnums=0, out_shardings=placed)
        self.revive = jit(self._revive, donate_argnums=0, out_shardings=(placed, whole))

    def _create(self) -> TrainState:
        """The state before the first step, with randomly initialized networks."""
        step, size = jnp.int32(0), self._config.data.image_size
        images = jnp.zeros((1, size, size, 3))
        params = self._objective.model.init(self._key(Draw.PARAMS, step), images)["params"]
        discriminator = discriminator_opt_state = None
        if self._objective.judged:
            key = self._key(Draw.DISCRIMINATOR, step)
            discriminator = self._objective.initial_discriminator(key)
            discriminator_opt_state = self._discriminator_optimizer.init(discriminator)
        return TrainState(
            step=step,
            params=params,
            ema_params=jax.tree.map(jnp.copy, params),
            opt_state=self._optimizer.init(params),
            uses=jnp.zeros(self._config.quantizer.codebook_size, jnp.int32),
            discriminator=discriminator,
            discriminator_opt_state=discriminator_opt_state,
        )

    def _train(
        self, state: TrainState, images: jax.Array, networks: Networks, phase: Phase
    ) -> tuple[TrainState, Metrics]:
        """Runs one optimizer step on images uint8 [B, H, W, 3]; metrics are float32 [] each."""
        fixed = {}
        if phase == Phase.DECODER:  # the decoder learns the codes that the averaged weights make
            fixed = {name: state.ema_params[name] for name in CODING}
            state = state.replace(params=state.params | fixed)
        gradients = self._gradients(state, images, networks, phase)
        updates, opt_state = self._optimizer.update(gradients.params, state.opt_state, state.params)
        # Muon and weight decay move parameters without a gradient, too.
        params = optax.apply_updates(state.params, updates) | fixed
        # The first averages follow quickly: early evaluations do not see the initial weights.
        decay = jnp.minimum(self._config.train.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        metrics = {
            **gradients.metrics,
            "gradient_norm": optax.tree.norm(gradients.params),
            "learning_rate": self._schedule(state.step),
        }
        if gradients.discriminator is not None:
            updates, discriminator_opt_state = self._discriminator_optimizer.update(
                gradients.discriminator, state.discriminator_opt_state
            )
            state = state.replace(
                discriminator=optax.apply_updates(state.discriminator, updates),
                discriminator_opt_state=discriminator_opt_state,
            )
            metrics["discriminator_gradient_norm"] = optax.tree.norm(gradients.discriminator)
        return state.replace(
            step=state.step + 1,
            params=params,
            ema_params=optax.incremental_update(params, state.ema_params, 1.0 - decay) | fixed,
            opt_state=opt_state,
            uses=state.uses + gradients.uses,
        ), metrics

    def _gradients(
        self, state: TrainState, images: jax.Array, networks: Networks, phase: Phase
    ) -> Gradients:
        """Those of a batch at once, or sequentially as the mean over its parts."""
        key, count = self._key(Draw.LOSS, state.step), self._config.train.accumulation
        scale = recombination_factor(self._config, state.step)

        def of_part(images: jax.Array, key: jax.Array) -> Gradients:
            images = images_to_float(images)
            return self._objective.gradients(
                state.params, state.discriminator, networks, images, key, phase, scale
            )

        if count == 1:
            return of_part(images, key)
        # Each part takes every n-th image, so it is split over the devices like the batch.
        parts = images.reshape(-1, count, *images.shape[1:]).swapaxes(0, 1)
        parts = jax.lax.with_sharding_constraint(parts, self._over_parts)

        def add(total: Gradients, part: tuple[jax.Array, jax.Array]) -> tuple[Gradients, None]:
            number, images = part
            gradients = of_part(images, jax.random.fold_in(key, number))
            return jax.tree.map(jnp.add, total, gradients), None

        shapes = jax.eval_shape(of_part, parts[0], key)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        total, _ = jax.lax.scan(add, zeros, (jnp.arange(count), parts))
        mean = jax.tree.map(lambda x: x / count, total._replace(uses=None))
        return mean._replace(uses=total.uses)

    def _latents(self, params: Params, images: jax.Array) -> jax.Array:
        """Latents float32 [B, N, D] of images uint8 [B, H, W, 3]."""
        return self._objective.apply(params, images_to_float(images), method="latents")

    def _reconstruct(self, params: Params, images: jax.Array, quantize: bool) -> jax.Array:
        """Reconstructs images uint8 [B, H, W, 3]; without quantization in the continuous phase."""
        method = None if quantize else "autoencode"
        reconstructed, _ = self._objective.apply(params, images_to_float(images), method=method)
        return images_to_uint8(reconstructed)

    def _find_components(self, state: TrainState, images: jax.Array) -> TrainState:
        """Sets the encoder's principal components to those of images uint8 [M, B, H, W, 3]."""
        count, side = self._config.model.num_components, component_side(images.shape[2])
        key = self._key(Draw.COMPONENTS, state.step)

        def flatten(images: jax.Array) -> jax.Array:
            return shrunk(images_to_float(images), side)

        components = {"encoder": principal_components(images, flatten, count, key)}
        return state.replace(
            params=state.params | components, ema_params=state.ema_params | components
        )

    def _initialise(self, state: TrainState, latents: jax.Array) -> TrainState:
        """Initializes the codebook from the latents of many batches, float32 [M, B, N, D].

        They are at least as many as it has entries.
        """
        size, key = self._config.quantizer.codebook_size, self._key(Draw.CODEBOOK, state.step)
        if self._config.model.encoder == "components":
            codebook = own_entries(latents.reshape(-1, *latents.shape[2:]), size, key)
        else:
            codebook = initial_codebook(latents.reshape(-1, latents.shape[-1]), size, key)
        return replace_codebook(state, codebook, jnp.ones(size, bool))

    def _revive(self, state: TrainState, images: jax.Array) -> tuple[TrainState, jax.Array]:
        """Moves dead entries to latents of a batch; also returns their number."""
        model, codebook = self._objective.model, state.params["quantizer"]["codebook"]
        latents = self._latents(state.params, images)
        indices, _ = assign(latents, codebook, model.kind, model.matcher)
        key = self._key(Draw.REVIVAL, state.step)
        threshold = self._config.quantizer.revive_threshold
        codebook, moved = revive_dead(codebook, state.uses, latents, indices, key, threshold)
        return replace_codebook(state, codebook, moved), jnp.sum(moved)

    def _key(self, draw: Draw, step: jax.Array) -> jax.Array:
        """The PRNG key of one draw at one step, the same one in a run that was resumed."""
        key = jax.random.key(self._config.seed)
        return jax.random.fold_in(jax.random.fold_in(key, draw), step)


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


def with_arrays(state: TrainState, arrays: Arrays) -> TrainState:
    """Replaces some of the parameters, and their averages, of a state before the first step."""

    def replace(params: Params) -> Params:
        initial = flatten_dict(params)
        # Copies, as steps reuse the memory of their state.
        placed = {
            path: jax.device_put(array, initial[path].sharding, may_alias=False)
            for path, array in arrays.items()
        }
        return unflatten_dict(initial | placed)

    return state.replace(params=replace(state.params), ema_params=replace(state.ema_params))
