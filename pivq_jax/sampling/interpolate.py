"""Interpolation: exchanges the paired codes of two images one after another."""

from __future__ import annotations

import functools
import operator

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pivq_jax.sampling.pairing import pair, rank_of_pairs
from pivq_jax.sampling.space import CodeSpace


@functools.partial(jax.jit, static_argnames=("space", "steps"))
def interpolate(
    space: CodeSpace, codebook: ArrayLike, codes_a: ArrayLike, codes_b: ArrayLike, steps: int
) -> jax.Array:
    """Exchanges the paired codes of A and B one after another, the cheapest pair first.

    Returns int32 [steps, ..., N]: the first step is A, the last one B, so `steps` is at least 2. At
    step s, the cheapest pairs are exchanged such that their share of the total squared distance of
    all pairs is closest to s / (steps - 1), so steps are evenly spaced in codebook space. Pairs
    that are exchanged at one step remain exchanged at all later ones. Raises ValueError if `steps`
    is below 2, and TypeError if it is not an integer.
    """
    codes_a, codes_b, codebook = space.check_pair(codes_a, codes_b, codebook)
    steps = operator.index(steps)
    if steps < 2:
        raise ValueError(f"steps = {steps}, but both ends count: use at least 2 steps")
    shape = codes_a.shape
    first, partners, pair_cost = pair(space, codebook, codes_a, codes_b)
    rank = rank_of_pairs(pair_cost, first != partners)
    # The distance covered halfway through each exchange; common codes cost nothing and rank last.
    cost = own = jnp.where(first == partners, 0.0, pair_cost)
    if space.places:  # all codes of a place at once
        place = space.places_of(first, codebook)
        owners = jax.nn.one_hot(place, space.places, dtype=bool)
        every = jnp.where(owners, cost[..., None], 0).sum(1)
        own = jnp.take_along_axis(every, place, -1)
        rank = jnp.take_along_axis(jnp.argsort(jnp.argsort(every, -1), -1), place, -1)
    earlier = rank[:, None, :] < rank[:, :, None]
    middle = (earlier * cost[:, None, :]).sum(-1) + own / 2
    step = jnp.arange(steps)[:, None, None]
    reached = step / (steps - 1) * cost.sum(-1, keepdims=True)
    exchanged = jnp.where((step > 0) & (middle <= reached), partners, first)
    return space.canonical(exchanged).reshape(steps, *shape)
