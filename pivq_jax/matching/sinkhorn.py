"""Entropic optimal transport, rounded to a one-to-one assignment. Not exact.

Source: M. Cuturi, "Sinkhorn distances: lightspeed computation of optimal transport", NIPS 2013, as
implemented in ott-jax.
"""

import jax
import jax.numpy as jnp

from pivq_jax.matching.greedy import pair_off

_EPSILON = 0.01  # in units of the mean excess of a cost over its row's minimum
_ITERATIONS = 500
_THRESHOLD = 1e-2


def solve(cost: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rounds a transport plan, largest entries first; the prices are its potentials."""
    prices, row_duals = jax.vmap(_potentials)(cost)
    # The logarithm of the plan, up to a negative factor.
    return pair_off(cost - row_duals[..., None] - prices[:, None, :]), prices


def _potentials(cost: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the column and row potentials of one problem; free columns have price 0."""
    # ott-jax takes a second to import and is not needed by the other methods.
    try:
        from ott.geometry import geometry
        from ott.problems.linear import linear_problem
        from ott.solvers.linear import sinkhorn
    except ImportError as error:
        raise ImportError("method 'sinkhorn' needs ott-jax: pip install ott-jax") from error

    num_rows, num_columns = cost.shape
    finite = jnp.isfinite(cost)
    excess = jnp.where(finite, cost - jnp.min(cost, axis=1, keepdims=True), 0.0)
    spread = jnp.sum(excess) / jnp.maximum(jnp.sum(finite, dtype=jnp.float32), 1)
    # Forbidden pairs cost more than any allowed one, by twice the largest excess of a row.
    largest = jnp.max(jnp.where(finite, cost, -jnp.inf))
    barrier = jnp.where(jnp.isfinite(largest), largest, 0.0) + 2.0 * jnp.max(excess)
    cost = jnp.where(finite, cost, barrier)
    rows, columns = jnp.ones(num_rows, cost.dtype), jnp.ones(num_columns, cost.dtype)
    slack = num_columns - num_rows
    if slack:
        # An additional row takes the free columns at no cost.
        cost = jnp.concatenate([cost, jnp.zeros((1, num_columns), cost.dtype)])
        rows = jnp.append(rows, float(slack))
    epsilon = jnp.maximum(_EPSILON * spread, 1e-7)
    problem = linear_problem.LinearProblem(
        geometry.Geometry(cost, epsilon=epsilon),  # type: ignore[arg-type]
        rows / num_columns,
        columns / num_columns,
    )
    solver = sinkhorn.Sinkhorn(max_iterations=_ITERATIONS, threshold=_THRESHOLD / num_columns)
    out = solver(problem)
    shift = out.f[-1] if slack else 0.0
    prices = jnp.nan_to_num(out.g + shift, posinf=0.0, neginf=0.0)
    return prices, jnp.nan_to_num(out.f[:num_rows] - shift, posinf=0.0, neginf=0.0)
