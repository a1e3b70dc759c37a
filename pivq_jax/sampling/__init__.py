"""New images from the codes of real images, by recombination and interpolation, or by an
optional prior.

All functions have fixed shapes and no host loops. They can be called directly, under `jit` (with
static `kind`, `method` and `steps`) and under `vmap`.
"""

from pivq_jax.sampling.interpolate import interpolate
from pivq_jax.sampling.lift import log_lift
from pivq_jax.sampling.pairing import canonical, pair_codes
from pivq_jax.sampling.parents import random_pairs, random_parents
from pivq_jax.sampling.prior import Prior, SetPrior, complete_sets, prior_bits
from pivq_jax.sampling.recombine import (
    choose_exchange,
    exchange_code,
    recombine,
    recombine_groups,
    recombine_many,
)

__all__ = [
    "Prior",
    "SetPrior",
    "canonical",
    "choose_exchange",
    "complete_sets",
    "exchange_code",
    "interpolate",
    "log_lift",
    "pair_codes",
    "prior_bits",
    "random_pairs",
    "random_parents",
    "recombine",
    "recombine_groups",
    "recombine_many",
]
