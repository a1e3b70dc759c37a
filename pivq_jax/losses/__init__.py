"""Loss functions of training, of which LPIPS, the perceptual one, is of use elsewhere, too."""

from pivq_jax.losses.perceptual import load_lpips, lpips, lpips_distance, lpips_features

__all__ = ["load_lpips", "lpips", "lpips_distance", "lpips_features"]
