"""The PI-VQ autoencoder: encoder, quantizer and decoder."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax

from pivq_jax.config.fields import Config
from pivq_jax.config.sections import KINDS, ModelConfig
from pivq_jax.model.components import Components, match_own
from pivq_jax.model.decoder import Decoder
from pivq_jax.model.encoder import Encoder
from pivq_jax.model.quantizer import Matcher, Quantized, Quantizer, add_noise, match_latents


class PIVQ(nn.Module):
    """The permutation-invariant vector-quantized autoencoder (arXiv 2604.01843).

    Images are float32 [B, H, W, 3] in [-1, 1] with H = W = `image_size`. Decoded images may exceed
    this range.
    """

    config: ModelConfig
    image_size: int
    codebook_size: int  # K
    kind: str = "matching"
    matcher: Matcher = match_latents

    def setup(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind = {self.kind!r} is unknown: use one of {', '.join(KINDS)}")
        if self.config.encoder == "components":
            self.encoder: Components | Encoder = Components(self.config, self.image_size)
        else:
            self.encoder = Encoder(self.config)
        self.quantizer = Quantizer(
            self.codebook_size, self.config.code_dim, self.kind, self.matcher
        )
        self.decoder = Decoder(self.config, self.image_size, self.kind == "positional")

    def __call__(self, images: jax.Array) -> tuple[jax.Array, Quantized]:
        """Returns reconstructions of images, and their `Quantized` latents."""
        quantized = self.quantizer(self.latents(images))
        return self.decode_vectors(quantized.vectors), quantized

    def autoencode(
        self, images: jax.Array, noise: float = 0.0, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Returns reconstructions without quantization, as before there is a codebook, and latents.

        The decoder gets the latents with normal noise of standard deviation `noise`, drawn with the
        key. Raises ValueError if there is noise and no key.
        """
        latents = self.latents(images)
        return self.decode_vectors(add_noise(latents, noise, key)), latents

    def latents(self, images: jax.Array) -> jax.Array:
        """Computes the latents of images, float32 [B, N, D]."""
        return self.encoder(images)

    def encode(self, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns the entries of images, int32 [B, N]; whether their latents are finite, bool [B];
        and the latents, float32 [B, N, D].
        """
        quantized = self.quantizer(self.latents(images))
        return quantized.indices, quantized.converged, quantized.latents

    def decode(self, indices: jax.Array) -> jax.Array:
        """Decodes codebook entries int32 [B, N]; their order matters for `positional` alone."""
        return self.decode_vectors(self.quantizer.codebook[indices])

    def decode_vectors(self, vectors: jax.Array) -> jax.Array:
        """Decodes code vectors float32 [B, N, D]."""
        if isinstance(self.encoder, Components):
            return self.decoder(*self.encoder.patterns(vectors))
        return self.decoder(vectors)


def pivq_from_config(
    config: Config, map_rows: Callable[[Matcher], Matcher] = lambda matcher: matcher
) -> PIVQ:
    """Builds the model of a config, without parameters.

    `map_rows` transforms the matching. For several devices, pass
    `partial(common.parallel.map_over_batch, mesh=mesh)`, which matches the images of each device on
    that device.
    """
    matcher: Matcher = partial(match_latents, method=config.quantizer.method)
    if config.model.encoder == "components":
        matcher = match_own
    return PIVQ(
        config.model,
        config.data.image_size,
        config.quantizer.codebook_size,
        config.quantizer.kind,
        map_rows(matcher),
    )
