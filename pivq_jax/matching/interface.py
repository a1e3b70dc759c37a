"""`match`: the common entry point of all assignment methods."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pivq_jax.matching import auction, certificate, greedy, shortest_path, sinkhorn

METHODS = ("auto", "shortest_path", "auction", "sinkhorn", "greedy")


class Matching(NamedTuple):
    """A one-to-one assignment of rows to columns for each problem of a batch."""

    columns: jax.Array  # int32 [..., N], the column of each row; always distinct and valid indices
    cost: jax.Array  # float32 [...], the sum of the chosen entries
    # float32 [...], certified upper bound on the cost minus the optimum; inf if not converged
    gap: jax.Array
    # bool [...], False if the problem contains NaN or -inf, or if no complete matching without
    # forbidden (+inf) pairs was found
    converged: jax.Array


def match(cost: jax.Array, method: str = "auto") -> Matching:
    """Assigns a distinct column to each row so that the total cost is minimal.

    Works under `jit`, `vmap` (solved as one batch), `lax.map`, and `shard_map` over the batch axis
    (without collectives; pass `check_vma=False`). No gradient flows through the assignment itself.
    The gradient of `cost` is 1 at the chosen entries and 0 elsewhere, as is that of the optimum;
    the gradient of `gap` is 0.

    Args:
        cost: floating-point [..., N, K] with 1 <= N <= K and any leading batch shape; converted to
            float32. +inf forbids a pair.
        method: the solver, one of `METHODS`:

            - "shortest_path": exact; one problem after another. Fastest on CPU.
            - "auction": exact; all problems together in few sequential steps. For GPU and TPU.
            - "sinkhorn": not exact; requires ott-jax. `gap` bounds the error.
            - "greedy": not exact; the cheapest pair first. A baseline.
            - "auto": "shortest_path" if compiled for CPU, if N = 1, or for a single problem of at
              most 16 rows, which offers too little parallelism; otherwise "auction". The shape is
              checked at trace time and the platform at lowering, so one traced function serves
              several platforms.

    Returns:
        A `Matching` with the leading shape of `cost`. Its columns are a valid one-to-one assignment
        for every input; see `Matching` for NaN, -inf and infeasible problems.

    Raises:
        ValueError: at trace time, if `cost` is not a floating-point array of such a shape, or has
            2^31 entries or more, or if `method` is unknown.
    """
    if method not in METHODS:
        raise ValueError(f"unknown matching method {method!r}: use one of {', '.join(METHODS)}")
    cost = jnp.asarray(cost)
    if cost.ndim < 2 or 0 in cost.shape or cost.shape[-2] > cost.shape[-1]:
        raise ValueError(
            f"cost has shape {cost.shape}; it must be [..., N, K], not empty, with 1 <= N <= K "
            "(transpose it to give each column its own row)"
        )
    if (cost.shape[-2] + 1) * cost.shape[-1] >= 2**31:  # solvers number all pairs in 32 bits
        raise ValueError(f"cost has shape {cost.shape}; (N + 1) * K must be below 2^31")
    if not jnp.issubdtype(cost.dtype, jnp.floating):
        raise ValueError(f"cost has dtype {cost.dtype}; cast it to float32 first")
    cost = cost.astype(jnp.float32)
    with jax.named_scope("matching"):  # launch/hlo.py and profiles find it by this name
        columns, gap, converged = _solver(method)(jax.lax.stop_gradient(cost))
        chosen = jnp.take_along_axis(cost, columns[..., None], axis=-1)[..., 0]
        return Matching(columns, jnp.sum(chosen, axis=-1), gap, converged)


@functools.cache
def _solver(method: str) -> Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
    """Returns a function that maps float32 [..., N, K] to columns, gap and converged."""

    @jax.custom_batching.custom_vmap
    def solve(cost: jax.Array) -> tuple[jax.Array, ...]:
        batch = cost.shape[:-2]
        results = _solve_flat(cost.reshape(-1, *cost.shape[-2:]), method)
        return tuple(result.reshape(batch + result.shape[1:]) for result in results)

    @solve.def_vmap
    def _(axis_size: int, in_batched: list[bool], cost: jax.Array) -> Any:
        # Batching the loops of a solver would be slow; solvers take a larger batch directly.
        del axis_size
        return solve(cost), (in_batched[0],) * 3

    return jax.jit(solve)


def _solve_flat(cost: jax.Array, method: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Solves float32 [B, N, K] with one of `METHODS`."""
    if method == "auto":
        one_by_one = functools.partial(_solve_flat, method="shortest_path")
        if cost.shape[1] == 1 or (cost.shape[0] == 1 and cost.shape[1] <= 16):
            return one_by_one(cost)
        at_once = functools.partial(_solve_flat, method="auction")
        return jax.lax.platform_dependent(cost, cpu=one_by_one, default=at_once)
    if method == "shortest_path":
        # All steps for one problem before the next, so that its costs stay in the cache.
        def solve_first(cost: jax.Array) -> tuple[jax.Array, jax.Array]:
            columns, prices = shortest_path.solve(cost[0])
            return columns[None], prices[None]

        def solve_one(cost: jax.Array) -> tuple[jax.Array, ...]:
            return tuple(result[0] for result in _solve_safely(cost[None], solve_first))

        return jax.lax.map(solve_one, cost)
    solvers = {"auction": auction, "sinkhorn": sinkhorn, "greedy": greedy}
    return _solve_safely(cost, solvers[method].solve)


def _solve_safely(
    cost: jax.Array, solve: Callable[..., tuple[Any, ...]]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sanitizes the costs, solves, completes the columns and certifies the result."""
    safe, scale, valid = certificate.prepare(cost)
    columns, prices, *_ = solve(safe)
    complete = jnp.all(columns >= 0, axis=1)
    columns = certificate.complete(columns, cost.shape[-1])
    gap = certificate.certify(safe, columns, prices)
    converged = valid & complete & (gap < jnp.inf)
    return columns, jnp.where(converged, gap * scale, jnp.inf), converged
