"""`match`: one entrance to every assignment method."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pivq_jax.matching import auction, certificate, greedy, shortest_path

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
    """Assigns each row its own column so that the total cost is least.

    Args:
      cost: floating [..., N, K], 1 <= N <= K, any leading batch shape, computed with as float32.
        +inf forbids a pair.
      method: how to solve it.
        - "shortest_path": exact; one problem after the other. The fastest on CPU.
        - "auction": exact; all problems at once in few sequential steps. For GPU and TPU.
        - "sinkhorn": not exact; needs ott-jax. `gap` says how far off it may be.
        - "greedy": not exact; the cheapest pair first. The baseline.
        - "auto": "shortest_path" where the code is compiled for CPU, or where N = 1 or the batch
          is one problem of at most 16 rows, which leaves nothing to do at once; otherwise
          "auction". The shape decides at trace time, the platform when the program is lowered,
          so that one traced function serves several.

    Returns:
      A `Matching` with the leading shape of `cost`. The columns are a valid one-to-one assignment
      on every input. See `Matching` for what NaN, -inf and infeasible problems give.

    Works under jit, vmap (solved as one batch), lax.map and shard_map over the batch (without a
    collective; pass check_vma=False). No gradient flows through the assignment itself; that of
    `cost` is 1 at the chosen entries and 0 elsewhere, as the optimum's is, and that of `gap` is 0.

    Raises:
      ValueError: at trace time, if `cost` is not a floating array of such a shape, or if `method`
        is unknown.
    """
    if method not in METHODS:
        raise ValueError(f"unknown matching method {method!r}: use one of {', '.join(METHODS)}")
    cost = jnp.asarray(cost)
    if cost.ndim < 2 or 0 in cost.shape or cost.shape[-2] > cost.shape[-1]:
        raise ValueError(
            f"cost has shape {cost.shape}; it must be [..., N, K], not empty, with 1 <= N <= K "
            "(transpose it to give each column its own row)"
        )
    if not jnp.issubdtype(cost.dtype, jnp.floating):
        raise ValueError(f"cost has dtype {cost.dtype}; cast it to float32 first")
    cost = cost.astype(jnp.float32)
    columns, gap, converged = _solver(method)(jax.lax.stop_gradient(cost))
    return Matching(columns, certificate.total(cost, columns), gap, converged)


@functools.cache
def _solver(method: str):
    """A function from float32 [..., N, K] to columns, gap and converged."""

    @jax.custom_batching.custom_vmap
    def solve(cost):
        batch = cost.shape[:-2]
        results = _solve_flat(cost.reshape(-1, *cost.shape[-2:]), method)
        return tuple(result.reshape(batch + result.shape[1:]) for result in results)

    @solve.def_vmap
    def _(axis_size, in_batched, cost):
        # Batching the loops of a solver would be slow; a larger batch is what solvers are made for.
        del axis_size
        return solve(cost), (in_batched[0],) * 3

    return jax.jit(solve)


def _solve_flat(cost: jax.Array, method: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Solves float32 [B, N, K] by one of `METHODS`."""
    if method == "auto":
        one_by_one = functools.partial(_solve_flat, method="shortest_path")
        if cost.shape[1] == 1 or (cost.shape[0] == 1 and cost.shape[1] <= 16):
            return one_by_one(cost)
        at_once = functools.partial(_solve_flat, method="auction")
        return jax.lax.platform_dependent(cost, cpu=one_by_one, default=at_once)
    if method == "shortest_path":
        # From cleaning to certificate one problem at a time, which then stays in the cache.
        def solve_first(cost):
            columns, prices = shortest_path.solve(cost[0])
            return columns[None], prices[None]

        def solve_one(cost):
            return tuple(result[0] for result in _solve_safely(cost[None], solve_first))

        return jax.lax.map(solve_one, cost)
    if method == "sinkhorn":
        from pivq_jax.matching import sinkhorn

        return _solve_safely(cost, sinkhorn.solve)
    return _solve_safely(cost, {"auction": auction, "greedy": greedy}[method].solve)


def _solve_safely(cost: jax.Array, solve) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Cleans the costs, solves, completes the columns and certifies the result."""
    safe, scale, valid = certificate.prepare(cost)
    columns, prices = solve(safe)
    complete = jnp.all(columns >= 0, axis=1)
    columns = certificate.complete(columns, cost.shape[-1])
    gap = certificate.certify(safe, columns, prices)
    converged = valid & complete & (gap < jnp.inf)
    return columns, jnp.where(converged, gap * scale, jnp.inf), converged
