"""Conversion from and to PyTorch weights, and published models; PyTorch itself is not needed."""

from pivq_jax.interop.safetensors_file import model_shapes
from pivq_jax.interop.weights import from_torch, to_torch

__all__ = ["from_torch", "model_shapes", "to_torch"]
