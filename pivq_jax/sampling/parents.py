"""The parents of new images: random ones, or random ones that resemble each other."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from pivq_jax.model.quantizer import squared_distances
from pivq_jax.sampling.space import CodeSpace


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


def near_parents(
    space: CodeSpace,
    key: jax.Array,
    count: int,
    codes: jax.typing.ArrayLike,
    codebook: jax.typing.ArrayLike,
    parents: int = 2,
    nearest_of: int = 1,
) -> jax.Array:
    """Draws groups of a random image and of images that resemble it, by their sets of codes.

    Of `nearest_of` random images, those nearest to the first parent are the others. Photographs of
    faces differ in pose and light, which many codes tell together, so that the codes of two random
    parents contradict each other more than those of parents that resemble each other.

    The distance of two sets is their Chamfer distance in codebook space (Fan et al. 2017, arXiv
    1612.00603): the mean squared distance of each code from the nearest one of the other set, in
    both directions. It does not depend on the order of codes. With several stages, it is the mean
    squared distance of the latents that the codes of each place add up to.

    Args:
        space: the space of the codes.
        key: PRNG key; a group does not depend on the number of groups after it.
        count: number of groups.
        codes: int [M, N], codes of the pool of images, values in [0, K).
        codebook: float [K, D].
        parents: P, the number of images per group, at least 2.
        nearest_of: number of images that the others are chosen from; all other images of the pool
            if there are fewer. With P - 1 or less, there is no choice: see `random_parents`.

    Returns:
        int32 [count, P], values in [0, M), those of a group distinct.

    Raises:
        ValueError: if the pool is too small or a number is out of range.
    """
    size = jnp.shape(codes)[0]
    nearest_of = min(nearest_of, size - 1)
    if nearest_of < parents:
        return random_parents(key, count, size, parents)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(count))
    codes, codebook = jnp.asarray(codes), jnp.asarray(codebook)
    return _near_parents(space, keys, codes, codebook, parents, nearest_of)


@partial(jax.jit, static_argnames=("space", "parents", "nearest_of"))
def _near_parents(
    space: CodeSpace,
    keys: jax.Array,
    codes: jax.Array,
    codebook: jax.Array,
    parents: int,
    nearest_of: int,
) -> jax.Array:
    latents = space.latents_of(codes, codebook) if space.places else None

    def group(key: jax.Array) -> jax.Array:
        key_first, key_others = jax.random.split(key)
        first = jax.random.randint(key_first, (), 0, len(codes), jnp.int32)
        others = jax.random.choice(key_others, len(codes) - 1, (nearest_of,), replace=False)
        others = (others + (others >= first)).astype(jnp.int32)  # skips the first parent

        def distance(other: jax.Array) -> jax.Array:
            if latents is not None:
                return jnp.mean((latents[first] - latents[other]) ** 2)
            apart = squared_distances(codebook[codes[first]], codebook[codes[other]])
            return apart.min(0).mean() + apart.min(1).mean()

        _, nearest = jax.lax.top_k(-jax.lax.map(distance, others), parents - 1)
        return jnp.concatenate([first[None], others[nearest]])

    return jax.lax.map(group, keys)
