"""Loss functions of training. LPIPS, the perceptual loss, can also be used on its own."""

from pivq_jax.losses.perceptual import load_lpips, lpips, lpips_distance, lpips_features

__all__ = ["load_lpips", "lpips", "lpips_distance", "lpips_features"]
