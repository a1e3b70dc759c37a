"""Adversarial training: the fake images of the discriminator, and the losses of both networks."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from pivq_jax.config.sections import AdversarialConfig
from pivq_jax.losses.adversarial import augment, discriminator_hinge, generator_hinge
from pivq_jax.model.discriminator import Discriminator

Params = Any
Metrics = dict[str, jax.Array]
Fakes = dict[str, jax.Array]  # float32 [B, H, W, 3] each; keys as in `Adversary.weights`


@dataclasses.dataclass(frozen=True)
class Adversary:
    """The discriminator and its settings; its parameters are an argument of every method."""

    discriminator: Discriminator
    settings: AdversarialConfig

    @property
    def weights(self) -> dict[str, float]:
        """The positive weights by kind of fake image, 'reconstructed' or 'recombined'."""
        settings = self.settings
        weights = {"reconstructed": settings.weight, "recombined": settings.recombined_weight}
        return {name: weight for name, weight in weights.items() if weight > 0}

    @property
    def total_weight(self) -> float:
        """The sum of `weights`."""
        return sum(self.weights.values())

    def generator_loss(self, params: Params, fakes: Fakes, key: jax.Array) -> jax.Array:
        """Computes the generator's hinge loss, averaged over the kinds by their weights."""
        total = jnp.float32(0)
        for i, (name, weight) in enumerate(self.weights.items()):
            logits = self._logits(params, fakes[name], jax.random.fold_in(key, i))
            total += weight * generator_hinge(logits)
        return total / self.total_weight

    def discriminator_loss(
        self, params: Params, fakes: Fakes, images: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Computes the discriminator's hinge loss, averaged over the kinds by their weights.

        The key is the one given to `generator_loss`. The mean logits of each kind are for the log.
        """
        real = self._logits(params, images, jax.random.fold_in(key, len(self.weights)))
        total, metrics = jnp.float32(0), {"logits_real": jnp.mean(real)}
        for i, (name, weight) in enumerate(self.weights.items()):
            # The same key as in `generator_loss` gives the same augmented images, so the compiler
            # computes their logits once for both losses.
            fake = self._logits(params, fakes[name], jax.random.fold_in(key, i))
            total += weight * discriminator_hinge(real, fake)
            metrics[f"logits_{name}"] = jnp.mean(fake)
        return total / self.total_weight, metrics

    def _logits(self, params: Params, images: jax.Array, key: jax.Array) -> jax.Array:
        policy = tuple(filter(None, self.settings.augmentations.split(",")))
        seen = augment(images, key, policy)
        logits: Any = self.discriminator.apply({"params": params}, seen)
        return logits
