"""Which pairs of codes `recombine` exchanges; docs/trials.md compares ways.

Related codes lie close to each other, so all pairs on one side of a random hyperplane go together.
Log lifts improve this choice by single moves (`lift`), and a prior over sets picks the best of
several choices (`prior`).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from pivq_jax.codes.exchange import beside_hyperplane
from pivq_jax.codes.space import CodeSpace
from pivq_jax.sampling.lift import improve_exchange
from pivq_jax.sampling.prior import Prior, pseudo_likelihood

# By which share log lifts may change the smaller part, exchanged or kept. With a quarter, sets are
# far more plausible, and images as new as before; with a half, less new
# (docs/trials.md).
SLACK = 0.25
CANDIDATES = 16  # choices compared for each image
# Passes of the prior's network for each. With twice or four times as many, the choices are as good.
PASSES = 4
ROWS = 256  # sets in a pass, which bounds the memory used


@partial(jax.jit, static_argnames=("space", "candidates"))
def choose_pairs(
    space: CodeSpace,
    codes_a: jax.Array,
    partners: jax.Array,
    codebook: jax.Array,
    key: jax.Array,
    fraction: jax.Array,
    lift: jax.Array | None = None,
    candidates: int = CANDIDATES,
    prior: Prior | None = None,
) -> jax.Array:
    """Chooses which pairs a new image exchanges: those on one side of a random hyperplane or, with
    a prior over sets, on one side of that of `candidates` hyperplanes whose set is likeliest.

    Codes are int32 [B, N] as `pair_codes` returns them, the codebook float32 [K, D], and `fraction`
    and `lift`, float32, as in `recombine`. Returns bool [B, N].
    """
    images = jnp.arange(len(codes_a))

    def side_of_hyperplane(key: jax.Array) -> jax.Array:
        """The pairs on one side of a random hyperplane, improved with log lifts: bool [B, N]."""
        exchanged = beside_hyperplane(space, codes_a, partners, codebook, key, fraction)
        if lift is None:
            return exchanged
        pairs = (codes_a != partners).sum(-1)
        slack = jnp.round(SLACK * jnp.minimum(fraction, 1 - fraction) * pairs)
        improve = jax.vmap(improve_exchange, in_axes=(0, 0, 0, None, 0))
        return improve(codes_a, partners, exchanged, lift, slack)

    if prior is None or candidates == 1:
        return side_of_hyperplane(key)
    # Images fold their numbers into the key, and none of them has this one.
    others = jax.random.split(jax.random.fold_in(key, 2**32 - 1), candidates - 1)
    keys = jnp.concatenate([key[None], others])
    choices = jax.lax.map(side_of_hyperplane, keys)
    sets = jnp.where(choices, partners, codes_a).reshape(-1, codes_a.shape[1])
    network: Any = prior.network
    scores = jax.lax.map(
        lambda codes: pseudo_likelihood(network, prior.params, codes[None], PASSES)[0],
        sets,
        batch_size=ROWS,
    ).reshape(choices.shape[:2])
    return choices[jnp.argmax(scores, axis=0), images]
