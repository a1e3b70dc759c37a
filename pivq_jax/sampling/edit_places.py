"""Edits of models with several stages: places that show a factor become those of a real image.

Single codes of such a model say little. All codes of a place add up to the latent of its patch, and
the decoder hides seams between patches of two images. So the places whose latents differ most
between labelled images with the wanted value and others, such as those of the mouth for a smile,
are exchanged for those of the labelled image with that value whose other places are most alike.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.sampling.edit import Labels
from pivq_jax.sampling.pairing import exchange_places
from pivq_jax.sampling.space import CodeSpace

LEAST_DIFFERENCE = 0.2  # of a place, relative to that of the place that differs most
MOST_NUMBERS = 2_048  # of an image, by which factors are read: low frequencies come first
SHRINKAGE = 0.1  # of their covariance towards a multiple of the identity


class PlaceTable(NamedTuple):
    """What the latents of labelled images tell of their factors; C is the most values of one."""

    codes: jax.Array  # int32 [M, N]
    latents: jax.Array  # float32 [M, P, latent_dim]
    values: jax.Array  # int32 [M, A]
    shows: jax.Array  # bool [A, C, P], whether a place shows that a factor has a value
    readers: jax.Array  # float32 [A, C, F] and
    offsets: jax.Array  # float32 [A, C]: the linear discriminant, -inf if no image has the value


def place_table(
    space: CodeSpace, codebook: jax.Array, codes: np.ndarray, labels: Labels
) -> PlaceTable:
    """Compares the latents of labelled images, of codes [M, N], by the values of their factors."""
    held = jnp.asarray(codes, jnp.int32)
    every = space.latents_of(held, codebook)
    latents, numbers = np.asarray(every), np.asarray(_numbers(every))
    count, places, _ = latents.shape
    mean = numbers.mean(0)
    covariance = (numbers - mean).T @ (numbers - mean) / count
    spread = np.trace(covariance) / len(covariance)
    covariance += SHRINKAGE * max(spread, 1e-12) * np.eye(len(covariance), dtype=np.float32)

    classes = [len(names) for names in labels.factors.values()]
    shape = len(classes), max(classes)
    shows = np.zeros((*shape, places), bool)
    readers = np.zeros((*shape, numbers.shape[1]), np.float32)
    offsets = np.full(shape, -np.inf, np.float32)
    for factor, value in np.ndindex(shape):
        has = labels.values[:, factor] == value
        if not has.any():
            continue
        reader = np.linalg.solve(covariance, numbers[has].mean(0) - mean)
        readers[factor, value] = reader
        offsets[factor, value] = np.log(has.mean()) - reader @ (numbers[has].mean(0) + mean) / 2
        if not has.all():
            apart = np.square(latents[has].mean(0) - latents[~has].mean(0)).sum(-1)
            apart /= np.maximum(latents.var(0).sum(-1), 1e-12)
            shows[factor, value] = apart >= LEAST_DIFFERENCE * apart.max()
    found = latents, labels.values, shows, readers, offsets
    return PlaceTable(held, *map(jnp.asarray, found))


@functools.partial(jax.jit, static_argnames="space")
def read_places(
    space: CodeSpace, codebook: jax.Array, codes: jax.Array, table: PlaceTable
) -> jax.Array:
    """Reads the factors of images from their codes [B, N]: the probabilities of their values.

    Returns float32 [B, A, C], by a linear discriminant (Fisher 1936) of latents.
    """
    numbers = _numbers(space.latents_of(codes, codebook))
    scores = jnp.einsum("bf,acf->bac", numbers, table.readers, precision=jax.lax.Precision.HIGHEST)
    return jax.nn.softmax(scores + table.offsets)


@functools.partial(jax.jit, static_argnames="space")
def edit_places(
    space: CodeSpace,
    codebook: jax.Array,
    codes: jax.Array,
    factor: jax.typing.ArrayLike,
    value: jax.typing.ArrayLike,
    table: PlaceTable,
) -> jax.Array:
    """Gives images, of codes [B, N], a value of a factor; both numbers are int scalars.

    Images that are read to have it stay, and so do all if no labelled image has it. Returns int32
    [B, N].
    """
    shows, has = table.shows[factor, value], table.values[:, factor] == value

    def most_alike(latents: jax.Array) -> jax.Array:
        apart = jnp.where(shows, 0.0, jnp.square(table.latents - latents).sum(-1)).sum(-1)
        return jnp.argmin(jnp.where(has, apart, jnp.inf))

    donors = jax.lax.map(most_alike, space.latents_of(codes, codebook))
    differs = read_places(space, codebook, codes, table)[:, factor].argmax(-1) != value
    exchanged = differs[:, None] & shows & has.any()
    return exchange_places(space, codebook, codes, table.codes[donors], exchanged)


def _numbers(latents: jax.Array) -> jax.Array:
    """The numbers by which factors are read, float32 [M, F], of latents [M, P, latent_dim]."""
    _, places, size = latents.shape
    kept = min(size, max(1, MOST_NUMBERS // places))
    return latents[..., :kept].reshape(len(latents), places * kept)
