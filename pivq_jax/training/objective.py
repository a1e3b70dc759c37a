"""The training objective and its gradients."""

import dataclasses
import enum
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import value_and_grad
from jax.sharding import Mesh

from pivq_jax import sampling
from pivq_jax.common.parallel import map_over_batch
from pivq_jax.common.psnr import psnr
from pivq_jax.common.weights import Params
from pivq_jax.config.fields import Config
from pivq_jax.config.sections import RECOMBINATION_PATCHES
from pivq_jax.losses import adversarial
from pivq_jax.losses.perceptual import lpips
from pivq_jax.losses.terms import pixel_loss, variance_loss
from pivq_jax.model.discriminator import Discriminator
from pivq_jax.model.pivq import PIVQ
from pivq_jax.model.quantizer import Quantized
from pivq_jax.training.build import model_from_config
from pivq_jax.training.recombination import nearest_patch_loss

Metrics = dict[str, jax.Array]
Decoded = dict[str, jax.Array]  # images, float32 [B, H, W, 3] each; keys as in `Objective.judged`


class Phase(enum.IntEnum):
    """The phases of a run; each is compiled separately."""

    CONTINUOUS = 0  # without quantization, before the codebook is initialized
    QUANTIZED = 1
    ADVERSARIAL = 2  # quantized, with the discriminator


def phase_at(config: Config, step: int) -> Phase:
    """Returns the phase of the training step that follows `step` completed steps."""
    if step < config.quantizer.init_step:
        return Phase.CONTINUOUS
    if config.adversarial.is_used and step >= config.adversarial.start_step:
        return Phase.ADVERSARIAL
    return Phase.QUANTIZED


def recombination_factor(config: Config, step: jax.typing.ArrayLike) -> jax.Array:
    """Returns the factor of the weight of the loss on recombined sets at a step.

    It rises linearly from 0 at `quantizer.init_step` to 1, so that the decoder learns the codes
    first: at full weight from the start it may stop using a code, which is then lost.
    """
    begin = config.quantizer.init_step
    steps = config.loss.recombination_warmup * max(0, config.train.steps - begin)
    return jnp.clip((step - begin) / steps, 0.0, 1.0) if steps else jnp.float32(1)


# Codes to change int32 [B, N], codes to take from int32 [B, N], and PRNG keys [B].
Pairs = tuple[jax.Array, jax.Array, jax.Array]


def recombine_pairs(pairs: Pairs, codebook: jax.Array, space: sampling.CodeSpace) -> jax.Array:
    """Exchanges half of the differing codes of each pair of images: int32 [B, N]."""
    return jax.vmap(partial(sampling.recombine, space, codebook))(*pairs)


class Gradients(NamedTuple):
    """Gradients, metrics and code counts of one batch."""

    params: Params
    discriminator: Params | None  # None before the adversarial phase
    metrics: Metrics  # float32 [] each
    uses: jax.Array  # int32 [K], use count of each entry


class Outputs(NamedTuple):
    """Outputs of the autoencoder for a batch, from which the losses are computed."""

    images: Decoded  # 'reconstructed' and, if a loss needs it, 'recombined'
    latents: jax.Array  # float32 [B, N, D], before quantization
    codebook_loss: jax.Array | None = None
    commitment_loss: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss of a batch; images of one device are recombined and matched on that device."""

    config: Config
    mesh: Mesh
    # Function of its weights, images, targets and the network that returns distances float32 [B].
    perceptual: Callable[..., jax.Array] = lpips

    @cached_property
    def model(self) -> PIVQ:
        """The autoencoder."""
        return model_from_config(self.config, self.mesh)

    @cached_property
    def discriminator(self) -> Discriminator:
        """The discriminator, used if `judged` is not empty."""
        settings, dtype = self.config.adversarial, jnp.dtype(self.config.model.dtype)
        return Discriminator(settings.channels, settings.layers, dtype)

    @cached_property
    def judged(self) -> dict[str, float]:
        """The positive weights by kind of fake image, 'reconstructed' or 'recombined'."""
        settings = self.config.adversarial
        weights = {"reconstructed": settings.weight, "recombined": settings.recombined_weight}
        return {name: weight for name, weight in weights.items() if weight > 0}

    def gradients(
        self,
        params: Params,
        discriminator: Params | None,
        lpips_weights: Params | None,
        images: jax.Array,
        key: jax.Array,
        phase: Phase,
        recombination_scale: jax.typing.ArrayLike = 1.0,
    ) -> Gradients:
        """Computes the gradients of both networks for images float32 [B, H, W, 3] in [-1, 1].

        The forward pass runs once. Cotangents of its outputs are pulled back through it, once for
        the update and, for the adaptive weight, twice to the decoder's last layer; the compiler
        removes the rest of these two.
        """
        key_mix, key_discriminator, key_shift = jax.random.split(key, 3)
        key_moved = jax.random.fold_in(key_shift, 1)  # key_shift itself is drawn from
        outputs, pull_back, quantized = jax.vjp(
            lambda params: self._forward(params, images, key_mix, phase), params, has_aux=True
        )
        (loss, metrics), to_targets = value_and_grad(self._target_losses, has_aux=True)(
            outputs, images, lpips_weights, key_moved
        )
        (other, figures), cotangents = value_and_grad(self._other_losses, has_aux=True)(
            outputs, images, recombination_scale, key_shift
        )
        cotangents = jax.tree.map(jnp.add, cotangents, to_targets)
        loss, metrics = loss + other, metrics | figures
        of_discriminator, uses = None, jnp.zeros(self.model.codebook_size, jnp.int32)

        if phase == Phase.ADVERSARIAL:
            realism, to_fakes = value_and_grad(self._generator_loss)(
                outputs, discriminator, key_discriminator
            )

            def at_last_layer(cotangents: Outputs) -> jax.Array:
                return pull_back(cotangents)[0]["decoder"]["output"]["pixels"]["kernel"]

            adaptive = adversarial.adaptive_weight(
                at_last_layer(to_targets),
                at_last_layer(to_fakes),
                self.config.adversarial.max_adaptive_weight,
            )
            scale = adaptive * sum(self.judged.values())
            cotangents = jax.tree.map(lambda x, y: x + scale * y, cotangents, to_fakes)
            loss += scale * realism
            (discriminator_loss, figures), of_discriminator = value_and_grad(
                self._discriminator_loss, has_aux=True
            )(discriminator, outputs.images, images, key_discriminator)
            metrics |= {
                "adversarial": realism,
                "adaptive_weight": adaptive,
                "discriminator": discriminator_loss,
                **figures,
            }

        if quantized is not None:
            # A matching that did not converge must stop the run instead of training on a wrong
            # result. The NaN reaches the gradients and thus every later loss.
            valid = jnp.where(jnp.all(quantized.converged), 1.0, jnp.nan)
            cotangents = jax.tree.map(lambda x: x * valid, cotangents)
            loss *= valid
            uses = jnp.bincount(quantized.indices.reshape(-1), length=self.model.codebook_size)
        (gradients,) = pull_back(cotangents)
        return Gradients(gradients, of_discriminator, {"loss": loss, **metrics}, uses)

    def apply(self, params: Params, *args: Any, method: str | None = None) -> Any:
        """Calls a method of the model."""
        return self.model.apply({"params": params}, *args, method=method)

    def _forward(
        self, params: Params, images: jax.Array, key: jax.Array, phase: Phase
    ) -> tuple[Outputs, Quantized | None]:
        """Also returns the quantizer's result, if any."""
        if phase == Phase.CONTINUOUS:
            noise = self.config.quantizer.noise
            decoded, latents = self.apply(params, images, noise, key, method="autoencode")
            return Outputs({"reconstructed": decoded}, latents), None
        reconstructed, quantized = self.apply(params, images)
        decoded = {"reconstructed": reconstructed}
        judged = phase == Phase.ADVERSARIAL and "recombined" in self.judged
        if judged or self.config.loss.recombination > 0:
            decoded["recombined"] = self._recombine(params, quantized.indices, key)
        losses = quantized.codebook_loss, quantized.commitment_loss
        return Outputs(decoded, quantized.latents, *losses), quantized

    def _recombine(self, params: Params, indices: jax.Array, key: jax.Array) -> jax.Array:
        """Decodes code sets of one half of the batch recombined with those of the other half.

        Only the decoder gets gradients from them.
        """
        half = indices.shape[0] // 2
        codebook = jax.lax.stop_gradient(params["quantizer"]["codebook"])
        a, b = indices[:half], indices[half : 2 * half]
        space = sampling.CodeSpace.of(self.config)
        recombine = map_over_batch(partial(recombine_pairs, space=space), self.mesh)
        mixed = recombine((a, b, jax.random.split(key, half)), codebook)
        decoded: jax.Array = self.apply(params, codebook[mixed], method="decode_vectors")
        return decoded

    def _target_losses(
        self,
        outputs: Outputs,
        images: jax.Array,
        lpips_weights: Params | None,
        key: jax.Array,
    ) -> tuple[jax.Array, Metrics]:
        """Losses of images that have targets, which alone set the adaptive weight, and metrics."""
        reconstructed, weights = outputs.images["reconstructed"], self.config.loss
        metrics = {
            "l1": jnp.mean(jnp.abs(reconstructed - images)),
            "psnr": jnp.mean(psnr(reconstructed, images, 2.0)),
        }
        total = pixel_loss(reconstructed, images, weights.l1, weights.l2)
        if not weights.perceptual:
            return total, metrics
        x, y = reconstructed, images
        if weights.perceptual_shift:  # pixels at one border go on at the opposite one
            shift = jax.random.randint(key, (2,), 0, weights.perceptual_shift + 1)
            x, y = (jnp.roll(image, shift, (1, 2)) for image in (x, y))
        each = self.perceptual(lpips_weights, x, y, weights.perceptual_network)
        metrics["lpips"] = jnp.mean(each)
        return total + weights.perceptual * metrics["lpips"], metrics

    def _other_losses(
        self,
        outputs: Outputs,
        images: jax.Array,
        recombination_scale: jax.typing.ArrayLike,
        key: jax.Array,
    ) -> tuple[jax.Array, Metrics]:
        """The losses of latents, quantizer and recombined images without targets, and metrics."""
        weights, total, metrics = self.config.loss, jnp.float32(0), {}
        if weights.variance > 0:
            metrics["variance"] = variance_loss(outputs.latents)
            total += weights.variance * metrics["variance"]
        codebook_loss, commitment_loss = outputs.codebook_loss, outputs.commitment_loss
        if codebook_loss is None or commitment_loss is None:
            return total, metrics
        total += weights.codebook * codebook_loss + weights.commitment * commitment_loss
        metrics["quantization_error"] = codebook_loss
        if weights.recombination > 0:
            patch_size = self.config.data.image_size // RECOMBINATION_PATCHES
            shift = jax.random.randint(key, (2,), 0, patch_size)
            metrics["recombination"] = nearest_patch_loss(
                outputs.images["recombined"], images, patch_size, shift
            )
            total += recombination_scale * weights.recombination * metrics["recombination"]
        return total, metrics

    def _generator_loss(self, outputs: Outputs, params: Params, key: jax.Array) -> jax.Array:
        """The generator's hinge loss, averaged over the kinds of fake images by their weights."""
        total = jnp.float32(0)
        for i, (name, weight) in enumerate(self.judged.items()):
            logits = self._logits(params, outputs.images[name], jax.random.fold_in(key, i))
            total += weight * adversarial.generator_hinge(logits)
        return total / sum(self.judged.values())

    def _discriminator_loss(
        self, params: Params, fakes: Decoded, images: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The discriminator's hinge loss, and mean logits."""
        real = self._logits(params, images, jax.random.fold_in(key, len(self.judged)))
        total, metrics = jnp.float32(0), {"logits_real": jnp.mean(real)}
        for i, (name, weight) in enumerate(self.judged.items()):
            # The same key as in `_generator_loss` gives the same augmented images, so the compiler
            # computes their logits once for both losses.
            fake = self._logits(params, fakes[name], jax.random.fold_in(key, i))
            total += weight * adversarial.discriminator_hinge(real, fake)
            metrics[f"logits_{name}"] = jnp.mean(fake)
        return total / sum(self.judged.values()), metrics

    def _logits(self, params: Params, images: jax.Array, key: jax.Array) -> jax.Array:
        policy = tuple(filter(None, self.config.adversarial.augmentations.split(",")))
        seen = adversarial.augment(images, key, policy)
        logits: Any = self.discriminator.apply({"params": params}, seen)
        return logits
