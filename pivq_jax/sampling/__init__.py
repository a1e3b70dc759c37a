"""New images from the codes of real images, by recombination and interpolation; no learned prior.

All functions have fixed shapes and no host loops. They can be called directly, under `jit` (with
static `kind`, `method` and `steps`) and under `vmap`.
"""

from pivq_jax.sampling.interpolate import interpolate
from pivq_jax.sampling.lift import log_lift
from pivq_jax.sampling.pairing import canonical, pair_codes
from pivq_jax.sampling.parents import random_pairs, random_parents
from pivq_jax.sampling.recombine import (
    choose_exchange,
    exchange_code,
    recombine,
    recombine_many,
)

__all__ = [
    "canonical",
    "choose_exchange",
    "exchange_code",
    "interpolate",
    "log_lift",
    "pair_codes",
    "random_pairs",
    "random_parents",
    "recombine",
    "recombine_many",
]
