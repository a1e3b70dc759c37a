"""The parents of new images: random ones, or random ones that fit each other."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pivq_jax.codes.space import CodeSpace
from pivq_jax.common.errors import InputError
from pivq_jax.matching import match
from pivq_jax.model.quantizer import squared_distances


def random_parents(key: jax.Array, count: int, size: int, parents: int = 2) -> jax.Array:
    """Draws groups of distinct parents from a pool of `size` images: int32 [count, parents].

    Every ordered group is equally likely, and groups may repeat. Raises InputError if the pool is
    too small or a number is out of range.
    """
    _check(count, size, parents)
    drawn = jnp.zeros((count, 0), jnp.int32)
    for index, own_key in enumerate(jax.random.split(key, parents)):
        # Drawn among the remaining images: skipping those drawn before keeps the draw uniform.
        new = jax.random.randint(own_key, (count,), 0, size - index, jnp.int32)
        for earlier in jnp.sort(drawn, axis=-1).T:
            new += new >= earlier
        drawn = jnp.concatenate([drawn, new[:, None]], axis=-1)
    return drawn


@partial(jax.jit, static_argnames=("space", "count", "parents", "nearest_of"))
def near_parents(
    space: CodeSpace,
    key: jax.Array,
    count: int,
    codes: ArrayLike,
    codebook: ArrayLike,
    parents: int = 2,
    nearest_of: int = 1,
) -> jax.Array:
    """Draws groups from a pool of codes [M, N]: a random image, and images that fit it.

    `nearest_of` random images are matched to a tenth as many first parents, exactly and one to one,
    at the least total distance; this is repeated until there are enough groups. The distance is the
    Chamfer distance of sets in codebook space (Fan et al. 2017, arXiv 1612.00603).

    If the pool has fewer than `nearest_of` other images, all are compared; if that leaves no
    choice, the result is that of `random_parents`. Raises the errors of `random_parents`, and
    ValueError for codes of another space. Returns int32 [count, parents], values in [0, M).
    """
    codes, _, codebook = space.check_pair(codes, codes, codebook)
    size = len(codes)
    _check(count, size, parents)
    nearest_of = min(nearest_of, size - 1)
    if nearest_of < parents:
        return random_parents(key, count, size, parents)
    firsts = min(count, max(1, round(nearest_of / (10 * (parents - 1)))))
    rounds = jnp.arange(-(-count // firsts))
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rounds)

    def distances(rows: jax.Array, columns: jax.Array) -> jax.Array:
        def chamfer(row: jax.Array, column: jax.Array) -> jax.Array:
            apart = squared_distances(codebook[codes[row]], codebook[codes[column]])
            return apart.min(0).mean() + apart.min(1).mean()

        return jax.lax.map(
            lambda column: jax.vmap(chamfer, in_axes=(0, None))(rows, column), columns
        ).T

    def match_round(key: jax.Array) -> jax.Array:
        drawn = jax.random.permutation(key, len(codes))[: firsts + nearest_of].astype(jnp.int32)
        rows, columns = drawn[:firsts], drawn[firsts:]
        cost = distances(rows, columns)
        # A first parent has as many rows as it gets others.
        matched = match(jnp.tile(cost, (parents - 1, 1))).columns.reshape(parents - 1, firsts).T
        order = jnp.argsort(jnp.take_along_axis(cost, matched, 1), 1)  # the nearest one first
        others = columns[jnp.take_along_axis(matched, order, 1)]
        return jnp.concatenate([rows[:, None], others], 1)

    return jax.lax.map(match_round, keys).reshape(-1, parents)[:count]


def _check(count: int, size: int, parents: int) -> None:
    for name, value, least in (("count", count, 1), ("parents", parents, 2)):
        if value < least:
            raise InputError(f"{name} = {value}: use at least {least}")
    if size < parents:
        raise InputError(f"{parents} parents of a pool of {size} images: encode more of them")
