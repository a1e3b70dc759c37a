"""New images from the codes of real images, by recombination and interpolation, or by an optional
prior. Edits and completions are methods of `pivq_jax.inference.TrainedModel`.

All functions have fixed shapes and no loops on the host, and can be called directly, under `jit`
(with static `space` and `steps`) and under `vmap`. The exceptions loop on the host:
`recombine_at_random` makes one batch after another, and `log_lift` counts the codes of many images.

Arguments have the same meaning in all of them: `space` is the `CodeSpace` of a model, `codebook`
its entries, float [K, D] and finite; codes are integers [..., N] or [B, N], whose values are not
checked, as they may be traced; `lift` is the result of `log_lift`. Each image uses its own key,
folded from `key`, so that its result does not depend on the size of the batch. Codes are returned
as int32, in canonical order. ValueError is raised for wrong shapes and for codes that are not
integers.
"""

from pivq_jax.codes.capacity import capacity
from pivq_jax.codes.pairing import pair_codes
from pivq_jax.codes.space import CodeSpace
from pivq_jax.sampling.choice import choose_pairs
from pivq_jax.sampling.edit import Labels
from pivq_jax.sampling.lift import log_lift
from pivq_jax.sampling.meaning import Meaning, informative_codes
from pivq_jax.sampling.parents import near_parents, random_parents
from pivq_jax.sampling.prior import Prior, SetPrior, complete_sets, prior_bits
from pivq_jax.sampling.recombine import (
    draw_share,
    exchange_code,
    interpolate,
    recombine,
    recombine_at_random,
    recombine_many,
)

__all__ = [
    "CodeSpace",
    "Labels",
    "Meaning",
    "Prior",
    "SetPrior",
    "capacity",
    "choose_pairs",
    "complete_sets",
    "draw_share",
    "exchange_code",
    "informative_codes",
    "interpolate",
    "log_lift",
    "near_parents",
    "pair_codes",
    "prior_bits",
    "random_parents",
    "recombine",
    "recombine_at_random",
    "recombine_many",
]
