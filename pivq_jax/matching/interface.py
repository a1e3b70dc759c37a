"""`match`: the common entry point of all assignment methods."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.matching import auction, certificate, greedy, reduction, shortest_path, sinkhorn

METHODS = ("auto", "shortest_path", "auction", "sinkhorn", "greedy")


class Matching(NamedTuple):
    """A one-to-one assignment of rows to columns for each problem of a batch."""

    # int32 [..., N], the column of each row; distinct and valid indices, for every input. If N > K,
    # N - K rows have none: -1
    columns: jax.Array
    # float32 [...], the sum of the chosen entries, NaN if the problem contains NaN or -inf; float64
    # under x64, if the costs were float64 or integers of 32 or 64 bits
    cost: jax.Array
    # as `cost`, certified upper bound on its difference from the optimum; inf if not converged
    gap: jax.Array
    # bool [...], whether `columns` is a complete matching without forbidden (+inf) pairs, of costs
    # without NaN and -inf. Exact methods then found an optimum; `gap` says how good others are
    converged: jax.Array


def match(cost: Any, method: str = "auto", maximize: bool = False) -> Matching:
    """Assigns a distinct column to each row so that the total cost is minimal.

    Works under `jit`, `vmap` (solved as one batch), `lax.map`, and `shard_map` over the batch axis
    (without collectives; pass `check_vma=False`). No gradient flows through the assignment itself.
    The gradient of `cost` is 1 at the chosen entries and 0 elsewhere, as is that of the optimum;
    the gradient of `gap` is 0.

    Args:
        cost: real [..., N, K] with any leading batch shape, of JAX or NumPy. +inf forbids a pair.
            Computed in float32; float64 and integers of 32 or 64 bits are rounded to that only
            after the least cost of each row, and if N = K of each column, has been subtracted.
            This includes arrays of NumPy without x64.
        method: the solver, one of `METHODS`:

            - "shortest_path": exact; one problem after another. Fastest on CPU.
            - "auction": exact; all problems together in few sequential steps. For GPU and TPU.
            - "sinkhorn": not exact; requires ott-jax. `gap` bounds the error.
            - "greedy": not exact; the cheapest pair first. A baseline.
            - "auto": "shortest_path" if compiled for CPU, if N = 1, or for a single problem of at
              most 16 rows, which offers too little parallelism; otherwise "auction". The shape is
              checked at trace time and the platform at lowering, so one traced function serves
              several platforms.
        maximize: whether the total is to be maximal instead. Then -inf forbids a pair, and +inf is
            as bad as NaN.

    Returns:
        A `Matching` with the leading shape of `cost`.

    Raises:
        ValueError: at trace time, if `cost` has fewer than two axes or an entry is not a real
            number, if N K is about 2^31 or more, or if `method` is unknown.
    """
    if method not in METHODS:
        raise ValueError(f"unknown matching method {method!r}: use one of {', '.join(METHODS)}")
    if not isinstance(cost, np.ndarray):
        cost = jnp.asarray(cost)
    if cost.ndim < 2:
        raise ValueError(f"cost has shape {cost.shape}; it must be [..., N, K]")
    if not any(jnp.issubdtype(cost.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise ValueError(f"cost has dtype {cost.dtype}; it must be of real numbers")
    *batch, num_rows, num_columns = cost.shape
    if num_rows > num_columns:
        turned = match(cost.swapaxes(-1, -2), method, maximize)
        none = jnp.full((*batch, num_rows), -1, jnp.int32)
        columns = jnp.broadcast_to(jnp.arange(num_columns, dtype=jnp.int32), turned.columns.shape)
        return turned._replace(
            columns=jnp.put_along_axis(none, turned.columns, columns, axis=-1, inplace=False)
        )
    if (num_rows + 1) * num_columns >= 2**31:  # solvers number all pairs in 32 bits
        raise ValueError(f"cost has shape {cost.shape}; (N + 1) * K must be below 2^31")
    float_type: np.dtype = np.dtype(np.float32)
    if not reduction.is_exact(cost.dtype):
        float_type = jax.dtypes.canonicalize_dtype(np.float64)
    if 0 in cost.shape:
        nothing = jnp.zeros(batch, float_type)
        columns = jnp.zeros((*batch, num_rows), jnp.int32)
        return Matching(columns, nothing, nothing, jnp.ones(batch, bool))
    with jax.named_scope("matching"):  # launch/hlo.py and profiles find it by this name
        reduced, scale = reduction.to_float32(cost, maximize)
        columns, gap, valid = _solver(method)(reduced)

        def total(cost: jax.Array) -> jax.Array:
            return jnp.sum(jnp.take_along_axis(cost, columns[..., None], axis=-1), axis=(-2, -1))

        if not reduction.is_exact(cost.dtype):
            gap = (gap + reduction.ROUNDING * total(reduced)).astype(float_type) * scale
            gap = jnp.where(gap < jnp.inf, gap, jnp.inf)  # not NaN
        chosen = total(jnp.asarray(cost.astype(float_type)))
        return Matching(columns, jnp.where(valid, chosen, jnp.nan), gap, gap < jnp.inf)


@functools.cache
def _solver(method: str) -> Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
    """Returns a function that maps float32 [..., N, K], N <= K, to columns, gap and validity.

    The gap is inf if there is no result; not valid is what contains NaN or -inf.
    """

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
    return columns, jnp.where(converged, gap * scale, jnp.inf), valid
