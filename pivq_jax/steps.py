"""The training state and the jitted steps on it: train, initialise the codebook, revive entries."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from pivq_jax import sampling
from pivq_jax.data.images import images_to_float, images_to_uint8
from pivq_jax.losses.recombination import nearest_patch_loss
from pivq_jax.losses.reconstruction import pixel_loss, psnr
from pivq_jax.model.pivq import PIVQ
from pivq_jax.parallel import over_batch, replicated
from pivq_jax.quantizer import count_uses, initial_codebook, revive_dead

Params = Any
CODEBOOK = ("quantizer", "codebook")


class TrainState(struct.PyTreeNode):
    """Everything that a checkpoint holds."""

    step: jax.Array  # int32 []: steps done
    params: Params  # f32
    ema_params: Params  # f32: exponential moving average, used for evaluation
    opt_state: optax.OptState
    uses: jax.Array  # int32 [K]: how often each entry was chosen since the last revival


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of the loss."""

    l1: float
    l2: float
    codebook: float
    commitment: float
    recombination: float


class Steps(NamedTuple):
    """The jitted functions of a run."""

    create: Callable[[], TrainState]
    train: jax.stages.Wrapped  # (state, images, quantize) -> (state, metrics)
    latents: Callable[[Params, jax.Array], jax.Array]
    reconstruct: Callable[..., jax.Array]
    initialise: Callable[[TrainState, jax.Array], TrainState]
    revive: Callable[[TrainState, jax.Array], tuple[TrainState, jax.Array]]


def make_optimizer(
    *,
    steps: int,
    learning_rate: float,
    warmup_steps: int,
    weight_decay: float,
    clip_norm: float,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """AdamW (Loshchilov and Hutter 2019) with clipping, linear warm-up and cosine decay to zero.

    Matrices decay, but for the codebook; vectors (biases, norms) do not.
    """
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps, steps)

    def decays(params: Params) -> Params:
        return jax.tree_util.tree_map_with_path(
            lambda path, value: value.ndim > 1 and path[-1].key != CODEBOOK[-1], params
        )

    optimizer = optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(schedule, b1=0.9, b2=0.99, weight_decay=weight_decay, mask=decays),
    )
    return optimizer, schedule


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


def make_steps(
    model: PIVQ,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    mesh: Mesh,
    seed: int,
    weights: LossWeights,
    ema_decay: float,
    revive_threshold: float,
) -> Steps:
    """Jit the steps for one mesh: the state is replicated, batches are split over 'data'.

    Keys are derived from (seed, step) alone, so a resumed run draws what the unbroken one drew.
    """
    whole, rows = replicated(mesh), over_batch(mesh)

    def key_at(step: jax.Array, purpose: int) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), step)

    def apply(params: Params, images: jax.Array, method: str | None = None) -> Any:
        return model.apply({"params": params}, images, method=method)

    def create() -> TrainState:
        size = model.image_size
        images = jnp.zeros((mesh.size, size, size, 3))
        params = model.init(key_at(jnp.int32(0), 0), images)["params"]
        return TrainState(
            step=jnp.int32(0),
            params=params,
            ema_params=jax.tree.map(jnp.copy, params),
            opt_state=optimizer.init(params),
            uses=jnp.zeros(model.codebook_size, jnp.int32),
        )

    def recombination_loss(
        params: Params, images: jax.Array, columns: jax.Array, step: jax.Array
    ) -> jax.Array:
        """How far images from recombined halves of the batch are from real ones, patch by patch.

        Only the decoder learns from it: codes and entries stay what real images made them.
        """
        half = images.shape[0] // 2
        codebook = jax.lax.stop_gradient(params["quantizer"]["codebook"])
        codes = columns if model.kind == "positional" else jnp.sort(columns, -1)
        pair = codes[:half], codes[half : 2 * half]
        mixed = sampling.recombine(*pair, codebook, key_at(step, 3), 0.5, model.kind)
        decoded = apply(params, codebook[mixed], method="decode_vectors")
        return nearest_patch_loss(decoded, images)

    def loss(
        params: Params, images: jax.Array, step: jax.Array, quantize: bool
    ) -> tuple[jax.Array, dict]:
        if quantize:
            predictions, quantized = apply(params, images)
        else:
            predictions = apply(params, images, method="autoencode")
        error = predictions - images
        total = pixel_loss(predictions, images, weights.l1, weights.l2)
        metrics = {"l1": jnp.mean(jnp.abs(error)), "psnr": jnp.mean(psnr(predictions, images, 2.0))}
        uses = jnp.zeros(model.codebook_size, jnp.int32)
        if quantize:
            total += weights.codebook * quantized.codebook_loss
            total += weights.commitment * quantized.commitment_loss
            if weights.recombination:
                distance = recombination_loss(params, images, quantized.columns, step)
                total += weights.recombination * distance
                metrics["recombination"] = distance
            # A matching that did not converge must stop the run, not train on a wrong answer: as a
            # factor, the NaN reaches the gradients and so every later loss.
            total *= jnp.where(jnp.all(quantized.converged), 1.0, jnp.nan)
            metrics["quantization_error"] = quantized.codebook_loss
            uses = count_uses(quantized.columns, model.codebook_size)
        return total, {"metrics": metrics, "uses": uses}

    @partial(jax.jit, donate_argnums=0, static_argnames="quantize", out_shardings=whole)
    def train(
        state: TrainState, images: jax.Array, quantize: bool
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """One optimizer step on images uint8 [B, H, W, 3]."""
        grad = jax.value_and_grad(loss, has_aux=True)
        (total, aux), gradients = grad(state.params, images_to_float(images), state.step, quantize)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # A young average follows fast, so that early evaluations are not of the initial weights.
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        metrics = {
            "loss": total,
            **aux["metrics"],
            "gradient_norm": optax.global_norm(gradients),
            "learning_rate": schedule(state.step),
        }
        return TrainState(
            step=state.step + 1,
            params=params,
            ema_params=optax.incremental_update(params, state.ema_params, 1.0 - decay),
            opt_state=opt_state,
            uses=state.uses + aux["uses"],
        ), metrics

    def latents_of(params: Params, images: jax.Array) -> jax.Array:
        return apply(params, images_to_float(images), method="latents")

    @partial(jax.jit, static_argnames="quantize", out_shardings=whole)
    def reconstruct(params: Params, images: jax.Array, quantize: bool) -> jax.Array:
        """images uint8 [B, H, W, 3] -> their reconstructions, uint8."""
        floats = images_to_float(images)
        if quantize:
            return images_to_uint8(apply(params, floats)[0])
        return images_to_uint8(apply(params, floats, method="autoencode"))

    @partial(jax.jit, donate_argnums=0, out_shardings=whole)
    def initialise(state: TrainState, latents: jax.Array) -> TrainState:
        """The codebook from latents f32 [M, D] of many batches, once, before quantization."""
        codebook = initial_codebook(latents, model.codebook_size, key_at(state.step, 1))
        return replace_codebook(state, codebook, jnp.ones(model.codebook_size, bool))

    @partial(jax.jit, donate_argnums=0, out_shardings=whole)
    def revive(state: TrainState, images: jax.Array) -> tuple[TrainState, jax.Array]:
        """Move dead entries onto latents of images uint8 [B, H, W, 3]; also how many."""
        latents = apply(state.params, images_to_float(images), method="latents")
        columns, _ = apply(state.params, images_to_float(images), method="columns")
        codebook, revived = revive_dead(
            state.params["quantizer"]["codebook"],
            state.uses,
            latents,
            columns,
            key_at(state.step, 2),
            revive_threshold,
        )
        return replace_codebook(state, codebook, revived), jnp.sum(revived)

    return Steps(
        create=jax.jit(create, out_shardings=whole),
        train=train,
        latents=jax.jit(latents_of, in_shardings=(whole, rows), out_shardings=whole),
        reconstruct=reconstruct,
        initialise=initialise,
        revive=revive,
    )
