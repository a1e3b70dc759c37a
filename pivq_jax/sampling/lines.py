"""Lines through the grid of places: a new image has the places on one side from another parent.

What it shows along the line is neither parent's. So parents are chosen that are alike along some
line, and then a line along which they are alike; elsewhere they may differ.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.model.quantizer import squared_distances

LINES = 16  # through the middle, evenly spaced, for the choice of parents


def along(places: int, directions: jax.Array) -> jax.Array:
    """Projects all P places, by row and column, to directions [..., 2]: float32 [..., P]."""
    side = math.isqrt(places)
    grid = jnp.stack(jnp.divmod(jnp.arange(places), side), -1).astype(jnp.float32)
    return jnp.einsum("pd,...d->...p", grid, directions, precision=jax.lax.Precision.HIGHEST)


def neighbours_across(taken: jax.Array) -> jax.Array:
    """Counts the neighbours of each place on the other side, of bool [..., P]: int32 [..., P]."""
    side = math.isqrt(taken.shape[-1])
    grid = taken.reshape(*taken.shape[:-1], side, side)
    around = jnp.pad(grid, [(0, 0)] * (grid.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
    up, down = around[..., :-2, 1:-1], around[..., 2:, 1:-1]
    left, right = around[..., 1:-1, :-2], around[..., 1:-1, 2:]
    across = jnp.stack([grid != other for other in (up, down, left, right)])
    return across.sum(0, jnp.int32).reshape(taken.shape)


def distances_along_lines(a: jax.Array, b: jax.Array) -> jax.Array:
    """The mean squared difference of the latents [R, P, D] and [C, P, D] that border on the other
    side of a line, once for each neighbour there, along that of `LINES` lines where it is least:
    float32 [R, C].
    """

    def nearer(least: jax.Array, line: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        at, weights = line
        rows, columns = ((x[:, at] * weights[:, None]).reshape(len(x), -1) for x in (a, b))
        return jnp.minimum(least, squared_distances(rows, columns) / a.shape[2]), None

    at, weights = map(jnp.asarray, _borders(a.shape[1]))
    start = jnp.full((len(a), len(b)), jnp.inf, jnp.float32)
    return jax.lax.scan(nearer, start, (at, weights))[0]


@functools.cache
def _borders(places: int) -> tuple[np.ndarray, np.ndarray]:
    """The places along each line, int [LINES, B], and the square roots of their weights, which are
    0 where a line has fewer than B.
    """
    with jax.ensure_compile_time_eval():
        angles = jnp.pi * jnp.arange(LINES) / LINES
        order = along(places, jnp.stack([jnp.cos(angles), jnp.sin(angles)], -1)).round(4)
        taken = jnp.argsort(jnp.argsort(order, -1), -1) < places // 2
        count = np.asarray(neighbours_across(taken), np.float32)
    at = np.argsort(-count, -1, kind="stable")[:, : (count > 0).sum(-1).max()]
    weights = np.take_along_axis(count / count.sum(-1, keepdims=True), at, -1)
    return at, np.sqrt(weights)
