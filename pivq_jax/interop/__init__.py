"""Conversion from and to PyTorch weights, published models, ONNX; PyTorch itself is not needed."""

from pivq_jax.interop.onnx_file import write_onnx
from pivq_jax.interop.safetensors_file import model_shapes
from pivq_jax.interop.weights import from_torch, to_torch

__all__ = ["from_torch", "model_shapes", "to_torch", "write_onnx"]
