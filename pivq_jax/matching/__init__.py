"""Exact batched assignment in JAX: give each row its own column at the least total cost.

    from pivq_jax.matching import match
    result = match(cost)    # cost: float [..., N, K], N <= K
    result.columns          # int32 [..., N], all distinct

The package depends on nothing but JAX (and ott-jax when `method="sinkhorn"` is asked for) and is
usable on its own. docs/matching.md explains the methods and shows what they cost.
"""

from pivq_jax.matching.interface import METHODS, Matching, match

__all__ = ["METHODS", "Matching", "match"]
