"""The discriminator's side of the objective: what it judges, and the losses of both players."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from pivq_jax.losses.adversarial import augment, discriminator_hinge, generator_hinge
from pivq_jax.model.discriminator import Discriminator

Params = Any
Metrics = dict[str, jax.Array]
Fakes = dict[str, jax.Array]  # f32 [B, H, W, 3] each, by the names of `Adversary.weights`


@dataclasses.dataclass(frozen=True)
class Adversary:
    """The discriminator and the weights of what it judges; kinds of weight 0 are not judged.

    Attributes:
        discriminator: the network; its parameters are an argument of every method.
        reconstructed: weight of reconstructions.
        recombined: weight of images decoded from recombined code sets.
        max_adaptive_weight: the limit of the factor that both weights have in common.
        augmentations: names in `losses.adversarial.AUGMENTATIONS`.
    """

    discriminator: Discriminator
    reconstructed: float
    recombined: float
    max_adaptive_weight: float
    augmentations: tuple[str, ...] = ()

    @property
    def weights(self) -> dict[str, float]:
        """Of each kind that is judged."""
        weights = {"reconstructed": self.reconstructed, "recombined": self.recombined}
        return {name: weight for name, weight in weights.items() if weight > 0}

    @property
    def total_weight(self) -> float:
        """Of all that is judged."""
        return sum(self.weights.values())

    def generator_loss(self, params: Params, fakes: Fakes, key: jax.Array) -> jax.Array:
        """The generator's hinge loss, f32 [], averaged over the kinds by their weights."""
        total = jnp.float32(0)
        for i, (name, weight) in enumerate(self.weights.items()):
            logits = self._logits(params, fakes[name], jax.random.fold_in(key, i))
            total += weight * generator_hinge(logits)
        return total / self.total_weight

    def discriminator_loss(
        self, params: Params, fakes: Fakes, images: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The discriminator's hinge loss, f32 [], averaged likewise; also mean logits to log."""
        real = self._logits(params, images, jax.random.fold_in(key, len(self.weights)))
        total, metrics = jnp.float32(0), {"logits_real": jnp.mean(real)}
        for i, (name, weight) in enumerate(self.weights.items()):
            # The key of `generator_loss`: the same augmented images, so the compiler finds the
            # same logits and computes them once.
            fake = self._logits(params, fakes[name], jax.random.fold_in(key, i))
            total += weight * discriminator_hinge(real, fake)
            metrics[f"logits_{name}"] = jnp.mean(fake)
        return total / self.total_weight, metrics

    def _logits(self, params: Params, images: jax.Array, key: jax.Array) -> jax.Array:
        seen = augment(images, key, self.augmentations)
        logits: Any = self.discriminator.apply({"params": params}, seen)
        return logits
