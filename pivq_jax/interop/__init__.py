"""PyTorch weights in and out, and the published form of a model; PyTorch itself is not needed."""

from pivq_jax.interop.weights import from_torch, to_torch

__all__ = ["from_torch", "to_torch"]
