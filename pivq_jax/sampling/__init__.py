"""New images from the codes of real ones: recombination and interpolation, with no learned prior.

Everything has fixed shapes and no host loop. The functions can be called as they are, under `jit`
(`kind` and `steps` static) and under `vmap`.
"""

from pivq_jax.sampling.interpolate import interpolate
from pivq_jax.sampling.pairing import canonical, pair_codes
from pivq_jax.sampling.parents import random_pairs, random_parents
from pivq_jax.sampling.recombine import exchange_code, recombine, recombine_many

__all__ = [
    "canonical",
    "exchange_code",
    "interpolate",
    "pair_codes",
    "random_pairs",
    "random_parents",
    "recombine",
    "recombine_many",
]
