"""Batched linear assignment in JAX: one distinct column per row at minimum total cost.

Usage::

    from pivq_jax.matching import match

    result = match(cost)    # cost: float [..., N, K] with N <= K
    result.columns          # int32 [..., N], all distinct

The package depends only on JAX (and on ott-jax for `method="sinkhorn"`) and can be used on its own.
docs/matching.md describes the methods and compares their cost.
"""

from pivq_jax.matching.interface import METHODS, Matching, match

__all__ = ["METHODS", "Matching", "match"]
