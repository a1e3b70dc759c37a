"""Interpolation: exchanges the paired codes of two images one after another."""

from __future__ import annotations

import functools
import operator

import jax
import jax.numpy as jnp

from pivq_jax.sampling.pairing import canonical, check_codes, pair, rank_of_pairs


def interpolate(
    codes_a: jax.typing.ArrayLike,
    codes_b: jax.typing.ArrayLike,
    codebook: jax.typing.ArrayLike,
    steps: int,
    kind: str = "matching",
    method: str = "auto",
) -> jax.Array:
    """Exchanges the paired codes of A and B one after another, the cheapest pair first.

    Args:
        codes_a: int [..., N], codes of the start images; see `recombine`.
        codes_b: int [..., N], codes of the end images.
        codebook: float [K, D], finite.
        steps: number of steps, including both ends; static, at least 2.
        kind: see `recombine`.
        method: see `recombine`.

    Returns:
        int32 [steps, ..., N]. The first step is A and the last is B, both in canonical order. At
        step s, the cheapest pairs are exchanged such that their share of the total squared distance
        of all pairs is closest to s / (steps - 1), so steps are evenly spaced in codebook space.
        Pairs that are exchanged at one step remain exchanged at all later ones.

    Raises:
        ValueError: if shapes are unequal or wrong, the codebook is too small for sets of N codes,
            `steps` is below 2, or `kind` is unknown.
        TypeError: if codes or `steps` are not integers.
    """
    codes_a, codes_b, codebook = check_codes(codes_a, codes_b, codebook, kind)
    steps = operator.index(steps)
    if steps < 2:
        raise ValueError(f"steps = {steps}, but both ends count: use at least 2 steps")
    return _interpolate(codes_a, codes_b, codebook, steps, kind, method)


@functools.partial(jax.jit, static_argnames=("steps", "kind", "method"))
def _interpolate(
    codes_a: jax.Array, codes_b: jax.Array, codebook: jax.Array, steps: int, kind: str, method: str
) -> jax.Array:
    shape = codes_a.shape
    codes_a, partners, pair_cost = pair(codes_a, codes_b, codebook, kind, method)
    rank = rank_of_pairs(pair_cost, codes_a != partners)
    # The distance covered halfway through each exchange; common codes cost nothing and rank last.
    cost = jnp.where(codes_a == partners, 0.0, pair_cost)
    earlier = rank[:, None, :] < rank[:, :, None]
    middle = (earlier * cost[:, None, :]).sum(-1) + cost / 2
    step = jnp.arange(steps)[:, None, None]
    reached = step / (steps - 1) * cost.sum(-1, keepdims=True)
    exchanged = jnp.where((step > 0) & (middle <= reached), partners, codes_a)
    return canonical(exchanged, kind).reshape(steps, *shape)
