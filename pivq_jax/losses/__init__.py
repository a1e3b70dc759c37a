"""Loss functions: pixel, perceptual, adversarial, recombination and latents' terms."""

from pivq_jax.losses.adversarial import (
    AUGMENTATIONS,
    adaptive_weight,
    augment,
    discriminator_hinge,
    generator_hinge,
)
from pivq_jax.losses.latents import variance_loss
from pivq_jax.losses.perceptual import load_lpips, lpips, lpips_distance, lpips_features
from pivq_jax.losses.recombination import nearest_patch_loss
from pivq_jax.losses.reconstruction import pixel_loss, psnr

__all__ = [
    "AUGMENTATIONS",
    "adaptive_weight",
    "augment",
    "discriminator_hinge",
    "generator_hinge",
    "load_lpips",
    "lpips",
    "lpips_distance",
    "lpips_features",
    "nearest_patch_loss",
    "pixel_loss",
    "psnr",
    "variance_loss",
]
