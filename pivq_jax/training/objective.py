"""The training objective and its gradients."""

import dataclasses
import enum
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import value_and_grad
from jax.sharding import Mesh

from pivq_jax.codes.exchange import exchange_some
from pivq_jax.codes.space import CodeSpace
from pivq_jax.common.errors import InputError
from pivq_jax.common.parallel import map_over_batch
from pivq_jax.common.params import Params
from pivq_jax.common.psnr import psnr
from pivq_jax.config.fields import Config
from pivq_jax.config.sections import RECOMBINATION_PATCHES
from pivq_jax.losses import adversarial, perceptual
from pivq_jax.losses.adversarial import views
from pivq_jax.losses.backbones import VGG16
from pivq_jax.losses.terms import pixel_loss, variance_loss
from pivq_jax.model.discriminator import Discriminator
from pivq_jax.model.pivq import PIVQ, pivq_from_config
from pivq_jax.model.quantizer import Quantized
from pivq_jax.training.recombination import nearest_patch_loss

Metrics = dict[str, jax.Array]
Networks = dict[str, Params]  # weights of the frozen networks of perceptual losses, by name
Features = dict[str, list[jax.Array]]  # `judged_maps` of real and fake images, float32
Decoded = dict[str, jax.Array]  # images, float32 [B, H, W, 3] each; keys as in `Objective.judged`


# The networks that make codes, fixed once the decoder alone learns.
CODING = ("encoder", "quantizer")
# The discriminator sees the maps of four of the five blocks of VGG16: the last one has few places.
JUDGED = VGG16(blocks=4)


class Phase(enum.IntEnum):
    """The phases of a run; each is compiled separately."""

    CONTINUOUS = 0  # without quantization, before the codebook is initialized
    QUANTIZED = 1
    ADVERSARIAL = 2  # quantized, with the discriminator
    DECODER = 3  # quantized; the decoder alone learns, with the discriminator if there is one


def phase_at(config: Config, step: int) -> Phase:
    """Returns the phase of the training step that follows `step` completed steps."""
    if step < config.init_step:
        return Phase.CONTINUOUS
    if config.quantizer.freezes and step >= config.freeze_step:
        return Phase.DECODER
    if config.adversarial.is_used and step >= config.adversarial_step:
        return Phase.ADVERSARIAL
    return Phase.QUANTIZED


def check_phases(config: Config, planned: Config, step: int) -> None:
    """Refuses more steps that would carry a run, at `step`, back into a phase that is over.

    What begins at a share of the run begins later if that has more steps. `planned` is the config
    that the run has had.
    """
    if not step or phase_at(config, step - 1) == phase_at(planned, step - 1):
        return
    begun = {"quantizer.init_at": planned.init_step}
    if planned.quantizer.freezes:
        begun["quantizer.freeze_at"] = planned.freeze_step
    if planned.adversarial.is_used:
        begun["adversarial.start_at"] = planned.adversarial_step
    steps = config.train.steps
    flags = " ".join(f"--config.{name}={first / steps:.6g}" for name, first in begun.items())
    raise InputError(
        f"with train.steps = {steps}, a run at step {step} is before what it began as one of"
        f" {planned.train.steps} steps: give {flags} as well, or fewer steps"
    )


def recombination_factor(config: Config, step: jax.typing.ArrayLike) -> jax.Array:
    """Returns the factor of the weight of the loss on recombined sets at a step.

    It rises linearly from 0 at `init_step` to 1, so that the decoder learns the codes
    first: at full weight from the start it may stop using a code, which is then lost.
    """
    begin = config.init_step
    steps = config.loss.recombination_warmup * max(0, config.train.steps - begin)
    return jnp.clip((step - begin) / steps, 0.0, 1.0) if steps else jnp.float32(1)


# Codes to change int32 [B, N], codes to take from int32 [B, N], and PRNG keys [B].
Pairs = tuple[jax.Array, jax.Array, jax.Array]


def recombine_pairs(pairs: Pairs, codebook: jax.Array, space: CodeSpace) -> jax.Array:
    """Exchanges some of the differing codes of each pair of images: int32 [B, N]."""
    return jax.vmap(partial(exchange_some, space, codebook))(*pairs)


def judged_maps(vgg: Params, images: jax.Array) -> list[jax.Array]:
    """What the discriminator sees of images f32 [B, H, W, 3]: their pixels and maps of VGG16."""
    return [images, *perceptual.feature_maps(JUDGED, vgg, images)]


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
    lpips: Callable[..., jax.Array] = perceptual.lpips

    @cached_property
    def model(self) -> PIVQ:
        """The autoencoder, which matches the images of each device on that device."""
        return pivq_from_config(self.config, partial(map_over_batch, mesh=self.mesh))

    @cached_property
    def discriminator(self) -> Discriminator:
        """The discriminator, used if `judged` is not empty."""
        return Discriminator(self.config.adversarial.channels)

    @cached_property
    def judged(self) -> dict[str, float]:
        """The positive weights by kind of fake image, 'reconstructed' or 'recombined'."""
        settings = self.config.adversarial
        weights = {"reconstructed": settings.weight, "recombined": settings.recombined_weight}
        return {name: weight for name, weight in weights.items() if weight > 0}

    def initial_discriminator(self, key: jax.Array) -> Params:
        """The discriminator's random parameters."""
        side = self.config.data.image_size // 2
        image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        maps, _ = jax.eval_shape(JUDGED.init_with_output, key, image)
        zeros = [jnp.zeros(x.shape) for x in (image, *maps)]
        params: Params = self.discriminator.init(key, zeros)["params"]
        return params

    def gradients(
        self,
        params: Params,
        discriminator: Params | None,
        networks: Networks,
        images: jax.Array,
        key: jax.Array,
        phase: Phase,
        recombination_scale: jax.typing.ArrayLike = 1.0,
    ) -> Gradients:
        """Computes the gradients of both networks for images float32 [B, H, W, 3] in [-1, 1].

        The forward pass runs once, and the cotangents of its outputs are pulled back through it.
        """
        key_mix, key_discriminator, key_shift = jax.random.split(key, 3)
        key_moved = jax.random.fold_in(key_shift, 1)  # key_shift itself is drawn from
        outputs, pull_back, quantized = jax.vjp(
            lambda params: self._forward(params, images, key_mix, phase), params, has_aux=True
        )
        (loss, metrics), to_targets = value_and_grad(self._target_losses, has_aux=True)(
            outputs, images, networks, key_moved
        )
        (other, figures), cotangents = value_and_grad(self._other_losses, has_aux=True)(
            outputs, images, recombination_scale, key_shift
        )
        cotangents = jax.tree.map(jnp.add, cotangents, to_targets)
        loss, metrics = loss + other, metrics | figures
        of_discriminator, uses = None, jnp.zeros(self.model.codebook_size, jnp.int32)

        if phase >= Phase.ADVERSARIAL and self.judged:
            (realism, (features, figures)), to_fakes = value_and_grad(self._realism, has_aux=True)(
                outputs, images, discriminator, networks, key_discriminator
            )
            cotangents = jax.tree.map(jnp.add, cotangents, to_fakes)
            loss, metrics = loss + realism, metrics | figures
            (discriminator_loss, figures), of_discriminator = value_and_grad(
                self._discriminator_loss, has_aux=True
            )(discriminator, features)
            metrics |= {"discriminator": discriminator_loss, **figures}

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
        if phase == Phase.DECODER:
            params = params | {name: jax.lax.stop_gradient(params[name]) for name in CODING}
        reconstructed, quantized = self.apply(params, images)
        decoded = {"reconstructed": reconstructed}
        judged = phase >= Phase.ADVERSARIAL and "recombined" in self.judged
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
        space = CodeSpace.of(self.config)
        recombine = map_over_batch(partial(recombine_pairs, space=space), self.mesh)
        mixed = recombine((a, b, jax.random.split(key, half)), codebook)
        decoded: jax.Array = self.apply(params, codebook[mixed], method="decode_vectors")
        return decoded

    def _target_losses(
        self,
        outputs: Outputs,
        images: jax.Array,
        networks: Networks,
        key: jax.Array,
    ) -> tuple[jax.Array, Metrics]:
        """Losses of images that have targets, and metrics."""
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
        network = weights.perceptual_network
        distances = self.lpips(networks[network], x, y, network)
        metrics["lpips"] = jnp.mean(distances)
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

    def _realism(
        self,
        outputs: Outputs,
        images: jax.Array,
        params: Params,
        networks: Networks,
        key: jax.Array,
    ) -> tuple[jax.Array, tuple[Features, Metrics]]:
        """What the discriminator says of fake images, and LPIPS of the same features of VGG16.

        Every second image is seen, to save time. Also returns the features, without gradients, for
        the discriminator's own loss.
        """
        settings, vgg = self.config.adversarial, networks["vgg"]
        fakes = {"reconstructed": outputs.images["reconstructed"][::2]}
        if "recombined" in self.judged:
            fakes["recombined"] = outputs.images["recombined"]
        key, key_recombined = jax.random.split(key)
        keys = {"reconstructed": key, "recombined": key_recombined}
        features = {name: judged_maps(vgg, views(fake, keys[name])) for name, fake in fakes.items()}
        features["real"] = judged_maps(vgg, views(images[::2], key))
        total, metrics = jnp.float32(0), {}
        if settings.perceptual:
            distances = perceptual.lpips_distance(
                vgg,
                *(
                    [perceptual.unit(x) for x in features[name][1:]]
                    for name in ("reconstructed", "real")
                ),
            )
            metrics["lpips_vgg"] = jnp.mean(distances)
            total += settings.perceptual * metrics["lpips_vgg"]
        for name, weight in self.judged.items():
            logits = self._logits(params, features[name])
            total += weight * adversarial.generator_hinge(logits)
        return total, (jax.lax.stop_gradient(features), metrics)

    def _discriminator_loss(self, params: Params, features: Features) -> tuple[jax.Array, Metrics]:
        """The discriminator's hinge loss, and mean logits."""
        real = self._logits(params, features["real"])
        total, metrics = jnp.float32(0), {"logits_real": jnp.mean(real)}
        for name in self.judged:
            fake = self._logits(params, features[name])
            total += adversarial.discriminator_hinge(real, fake)
            metrics[f"logits_{name}"] = jnp.mean(fake)
        return total / len(self.judged), metrics

    def _logits(self, params: Params, features: Sequence[jax.Array]) -> jax.Array:
        logits: Any = self.discriminator.apply({"params": params}, features)
        return logits
