"""Matching quantization as a layer for other models."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from pivq_jax.model.quantizer import Matcher, Quantized, Quantizer, match_latents


class MatchingQuantizer(nn.Module):
    """Replaces the vectors of each example by distinct codebook entries, at least total distance.

    Put it where a VQ layer would be, add `codebook_loss` and a part of `commitment_loss`, such as
    0.25, to the loss, and pass `vectors` on. For NNX, wrap it in `flax.nnx.bridge.ToNNX`.

    Entries are drawn from a normal distribution with standard deviation 1, so vectors should have
    about this scale at first, such as after a LayerNorm.
    """

    codebook_size: int  # K, at least the number of vectors of an example
    # How entries are assigned: by another solver, `partial(match_latents, method="auction")`; or on
    # several devices, `map_over_batch(match_latents, mesh)` of `pivq_jax.common.parallel`.
    matcher: Matcher = match_latents

    @nn.compact
    def __call__(self, latents: jax.Array) -> Quantized:
        """Quantizes floating-point [B, ..., D], such as a feature map [B, H, W, C].

        Returns:
            `Quantized` with vectors and latents of the shape and dtype of the input, and indices
            int32 [B, ...]. Gradients of vectors pass straight to the input; those of the codebook
            come from `codebook_loss` alone.

        Raises:
            ValueError: if there are fewer than three axes, or more vectors than entries.
        """
        if latents.ndim < 3:
            raise ValueError(f"latents have shape {latents.shape}; they must be [B, ..., D]")
        count, size = math.prod(latents.shape[1:-1]), latents.shape[-1]
        if count > self.codebook_size:
            raise ValueError(
                f"an example has {count} vectors, which must be distinct entries, and the codebook "
                f"has {self.codebook_size}: use a codebook_size of at least {count}"
            )
        quantizer = Quantizer(self.codebook_size, size, "matching", self.matcher, name="quantizer")
        quantized = quantizer(latents.reshape(-1, count, size).astype(jnp.float32))
        return quantized._replace(
            vectors=quantized.vectors.reshape(latents.shape).astype(latents.dtype),
            indices=quantized.indices.reshape(latents.shape[:-1]),
            latents=latents,
        )
