"""Drawing the parents of new images."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def random_pairs(key: jax.Array, count: int, size: int) -> jax.Array:
    """Draws pairs of different parents: `random_parents` of two, int32 [count, 2]."""
    return random_parents(key, count, size, 2)


def random_parents(key: jax.Array, count: int, size: int, parents: int) -> jax.Array:
    """Draws groups of different parents from a pool of `size` images.

    Args:
      key: PRNG key; the same key gives the same groups.
      count: number of groups.
      size: number of images in the pool, at least `parents`.
      parents: images in a group, at least 2.

    Returns:
      int32 [count, parents], values in [0, size). Those of a group differ, and every ordered group
      is equally likely; a group may come more than once.

    Raises:
      ValueError: for a pool too small, or numbers out of range.
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
        # Drawn from the others: stepping over those drawn before keeps it uniform, with no redraw.
        new = jax.random.randint(own_key, (count,), 0, size - index, jnp.int32)
        for earlier in jnp.sort(drawn, axis=-1).T:
            new += new >= earlier
        drawn = jnp.concatenate([drawn, new[:, None]], axis=-1)
    return drawn
