"""PIVQ: encoder, quantizer and decoder composed."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from pivq_jax.config.fields import Config
from pivq_jax.model.decoder import Decoder
from pivq_jax.model.encoder import Encoder
from pivq_jax.model.quantizer import Matcher, Quantized, Quantizer, match_latents


class PIVQ(nn.Module):
    """The permutation-invariant vector-quantized autoencoder (arXiv 2604.01843)."""

    image_size: int
    patch_size: int
    num_codes: int  # N
    codebook_size: int  # K
    code_dim: int  # D
    width: int
    heads: int
    encoder_depth: int
    set_depth: int
    decoder_depth: int
    mlp_ratio: int = 4
    output: str = "conv"
    output_channels: int = 32
    kind: str = "matching"
    matcher: Matcher = match_latents
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    def setup(self) -> None:
        self.encoder = Encoder(
            num_codes=self.num_codes,
            code_dim=self.code_dim,
            patch_size=self.patch_size,
            width=self.width,
            depth=self.encoder_depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            dtype=self.dtype,
            remat=self.remat,
        )
        self.quantizer = Quantizer(self.codebook_size, self.code_dim, self.kind, self.matcher)
        self.decoder = Decoder(
            image_size=self.image_size,
            patch_size=self.patch_size,
            width=self.width,
            set_depth=self.set_depth,
            depth=self.decoder_depth,
            heads=self.heads,
            output=self.output,
            output_channels=self.output_channels,
            positional=self.kind == "positional",
            mlp_ratio=self.mlp_ratio,
            dtype=self.dtype,
            remat=self.remat,
        )

    def __call__(self, images: jax.Array) -> tuple[jax.Array, Quantized]:
        """images f32 [B, H, W, 3] in [-1, 1] -> (their reconstructions, the quantizer's result)."""
        quantized = self.quantizer(self.latents(images))
        return self.decoder(quantized.vectors), quantized

    def autoencode(self, images: jax.Array) -> jax.Array:
        """Without quantization, as before the codebook's initialisation: images -> images."""
        return self.decoder(self.latents(images))

    def latents(self, images: jax.Array) -> jax.Array:
        """images f32 [B, H, W, 3] -> latents f32 [B, N, D]."""
        return self.encoder(images)

    def encode(self, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """images f32 [B, H, W, 3] -> columns int32 [B, N], converged bool [B], latents."""
        latents = self.latents(images)
        quantized = self.quantizer(latents)
        return quantized.columns, quantized.converged, latents

    def decode(self, columns: jax.Array) -> jax.Array:
        """columns int32 [B, N] -> images f32 [B, H, W, 3]; in any order but for `positional`."""
        return self.decoder(self.quantizer.lookup(columns))

    def decode_vectors(self, vectors: jax.Array) -> jax.Array:
        """Code vectors f32 [B, N, D] -> images f32 [B, H, W, 3]."""
        return self.decoder(vectors)


def pivq_from_config(
    config: Config, map_rows: Callable[[Matcher], Matcher] = lambda matcher: matcher
) -> PIVQ:
    """The model that a config describes.

    Args:
        config: of a run.
        map_rows: how the matching is run over a batch; for several devices give
            `partial(common.parallel.map_over_batch, mesh=mesh)`.
    """
    return PIVQ(
        **{**config.model, "dtype": jnp.dtype(config.model.dtype)},
        image_size=config.data.image_size,
        codebook_size=config.quantizer.codebook_size,
        kind=config.quantizer.kind,
        matcher=map_rows(partial(match_latents, method=config.quantizer.method)),
    )
