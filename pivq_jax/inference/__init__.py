"""Inference with trained models; `pivq_jax.load` and `pivq_jax.from_pretrained` open them."""

from pivq_jax.inference.trained_model import TrainedModel

__all__ = ["TrainedModel"]
