"""Random choice of the parents of new images."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def random_pairs(key: jax.Array, count: int, size: int) -> jax.Array:
    """Draws pairs of distinct parents; `random_parents` with two parents per group.

    Args:
        key: PRNG key.
        count: number of pairs.
        size: number of images in the pool, at least 2.

    Returns:
        int32 [count, 2], values in [0, size).

    Raises:
        ValueError: if the pool is too small or `count` is negative.
    """
    return random_parents(key, count, size, 2)


def random_parents(key: jax.Array, count: int, size: int, parents: int) -> jax.Array:
    """Draws groups of distinct parents from a pool of `size` images.

    Args:
        key: PRNG key; the same key gives the same groups.
        count: number of groups.
        size: number of images in the pool, at least `parents`.
        parents: number of images per group, at least 2.

    Returns:
        int32 [count, parents], values in [0, size). The parents of a group are distinct and every
        ordered group is equally likely; groups may repeat.

    Raises:
        ValueError: if the pool is too small or a number is out of range.
    """
    if parents < 2:
        raise ValueError(f"parents = {parents}: recombine at least 2 images")
    if size < parents:
        raise ValueError(
            f"a pool of {size} images holds no {parents} parents: give at least {parents} images"
        )
    if count < 0:
        raise ValueError(f"count = {count}, but it is a number of groups: use 0 or more")
    drawn = jnp.zeros((count, 0), jnp.int32)
    for index, own_key in enumerate(jax.random.split(key, parents)):
        # Drawn among the remaining images: skipping those drawn before keeps the draw uniform.
        new = jax.random.randint(own_key, (count,), 0, size - index, jnp.int32)
        for earlier in jnp.sort(drawn, axis=-1).T:
            new += new >= earlier
        drawn = jnp.concatenate([drawn, new[:, None]], axis=-1)
    return drawn
