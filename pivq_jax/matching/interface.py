"""`match`: one entrance to every assignment method."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pivq_jax.matching import certificate, shortest_path

METHODS = ("auto", "shortest_path", "auction", "sinkhorn", "greedy")


class Matching(NamedTuple):
    """A one-to-one assignment of rows to columns, for each problem of a batch.

    Attributes:
      columns: int32 [..., N], the column of each row, all distinct, always valid indices.
      cost: float32 [...], the sum of the chosen entries.
      gap: float32 [...], certified bound on the cost minus the optimum; inf if not converged.
      converged: bool [...], False if the problem holds NaN or -inf, or if no complete matching
        without a forbidden (+inf) pair was found.
    """

    columns: jax.Array
    cost: jax.Array
    gap: jax.Array
    converged: jax.Array


def match(cost: jax.Array, method: str = "auto") -> Matching:
    """Assigns each row its own column so that the total cost is least."""
    if method not in METHODS:
        raise ValueError(f"unknown matching method {method!r}: use one of {', '.join(METHODS)}")
    cost = jnp.asarray(cost)
    if cost.ndim < 2 or 0 in cost.shape or cost.shape[-2] > cost.shape[-1]:
        raise ValueError(
            f"cost has shape {cost.shape}; it must be [..., N, K], not empty, with 1 <= N <= K "
            "(transpose it to match columns to rows)"
        )
    if not jnp.issubdtype(cost.dtype, jnp.floating):
        raise ValueError(f"cost has dtype {cost.dtype}; cast it to float32 first")
    cost = cost.astype(jnp.float32)
    columns, gap, converged = _match(jax.lax.stop_gradient(cost), method)
    return Matching(columns, certificate.total(cost, columns), gap, converged)


@functools.partial(jax.jit, static_argnums=1)
def _match(cost, method):
    batch = cost.shape[:-2]
    cost = cost.reshape(-1, *cost.shape[-2:])
    out = jax.lax.map(_solve_one, cost)
    return tuple(x.reshape(batch + x.shape[1:]) for x in out)


def _solve_one(cost):
    safe, scale, valid = certificate.prepare(cost)
    columns, prices = shortest_path.solve(safe)
    columns = certificate.complete(columns[None], cost.shape[-1])
    gap = certificate.certify(safe[None], columns, prices[None])[0]
    converged = valid & (gap < jnp.inf)
    return columns[0], jnp.where(converged, gap * scale, jnp.inf), converged
