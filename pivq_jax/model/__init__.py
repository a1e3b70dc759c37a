"""The networks: encoder, quantizer and decoder, which `PIVQ` puts together, and a discriminator."""

from pivq_jax.model.matching_quantizer import MatchingQuantizer
from pivq_jax.model.pivq import PIVQ, pivq_from_config
from pivq_jax.model.quantizer import squared_distances

__all__ = ["PIVQ", "MatchingQuantizer", "pivq_from_config", "squared_distances"]
