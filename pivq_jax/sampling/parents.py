"""The parents of new images: random ones, or random ones that resemble each other."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pivq_jax.common.errors import InputError
from pivq_jax.model.quantizer import squared_distances
from pivq_jax.sampling.space import CodeSpace


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


def near_parents(
    space: CodeSpace,
    key: jax.Array,
    count: int,
    codes: ArrayLike,
    codebook: ArrayLike,
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

    The pool has M images with codes [M, N]. If it has fewer than `nearest_of` other images, all of
    them are compared; if `nearest_of` leaves no choice, the result is that of `random_parents`,
    which also says what is refused. Returns int32 [count, parents], values in [0, M).
    """
    size = jnp.shape(codes)[0]
    _check(count, size, parents)
    nearest_of = min(nearest_of, size - 1)
    if nearest_of < parents:
        return random_parents(key, count, size, parents)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(count))
    codes, codebook = jnp.asarray(codes), jnp.asarray(codebook)
    return _near_parents(space, keys, codes, codebook, parents, nearest_of)


def _check(count: int, size: int, parents: int) -> None:
    for name, value, least in (("count", count, 1), ("parents", parents, 2)):
        if value < least:
            raise InputError(f"{name} = {value}: use at least {least}")
    if size < parents:
        raise InputError(f"{parents} parents of a pool of {size} images: encode more of them")


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
