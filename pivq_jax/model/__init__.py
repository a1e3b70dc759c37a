"""The networks: encoder, quantizer and decoder, which `PIVQ` puts together, and a discriminator."""

from pivq_jax.config.sections import KINDS
from pivq_jax.model.decoder import Decoder
from pivq_jax.model.discriminator import Discriminator
from pivq_jax.model.encoder import Encoder
from pivq_jax.model.k_means import initial_codebook
from pivq_jax.model.pivq import PIVQ, pivq_from_config
from pivq_jax.model.quantizer import Quantized, squared_distances

__all__ = [
    "KINDS",
    "PIVQ",
    "Decoder",
    "Discriminator",
    "Encoder",
    "Quantized",
    "initial_codebook",
    "pivq_from_config",
    "squared_distances",
]
