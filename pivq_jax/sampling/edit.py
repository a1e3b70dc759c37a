"""Edits: the nearest set of codes that shows another value of a factor, by one more matching.

docs/edits.md has the cost of replacing a code by an entry, and what takes its place with several
stages.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.common.labels import is_known
from pivq_jax.matching import match
from pivq_jax.model.quantizer import squared_distances
from pivq_jax.sampling.pairing import exchange_places, most_alike
from pivq_jax.sampling.space import CodeSpace

LIFT_WEIGHT, WANTED_WEIGHT, KEPT_WEIGHT = 1 / 3, 2.0, 0.5
# Smaller differences of p(value | code) and p(value) are often chance.
LEAST_EVIDENCE = math.log(3 / 4)

LEAST_DIFFERENCE = 0.2  # of a place, relative to that of the place that differs most
MOST_NUMBERS = 2_048  # of an image, by which factors are read: low frequencies come first
SHRINKAGE = 0.1  # of their covariance towards a multiple of the identity


class Labels(NamedTuple):
    """The labelled factors of images, such as the colour of the hair."""

    values: np.ndarray  # int32 [M, A], the value of each factor, an index into its names
    factors: Mapping[str, tuple[str, ...]]  # the names of the values of each of the A factors

    def wanted(self, /, **changes: str) -> np.ndarray:
        """Returns the row of values that `edit` asks for, int32 [A], -1 for factors to be kept.

        Raises ValueError if a factor or value is unknown, no image shows it, or `changes` is empty.
        """
        if not changes:
            raise ValueError(f"nothing to change: give some of {', '.join(self.factors)}")
        check_values(self.factors, changes)
        result = np.full(len(self.factors), -1, np.int32)
        for name, value in changes.items():
            factor, wanted = list(self.factors).index(name), self.factors[name].index(value)
            if not np.any(self.values[:, factor] == wanted):  # nothing is known of its codes
                raise ValueError(f"no training image shows {name}={value}")
            result[factor] = wanted
        return result


def check_values(factors: Mapping[str, Sequence[str]], changes: Mapping[str, str]) -> None:
    """Checks that factors have the wanted values of an edit; raises ValueError."""
    for name, value in changes.items():
        if name not in factors:
            raise ValueError(f"factor {name!r} is unknown: use {', '.join(factors)}")
        if value not in factors[name]:
            raise ValueError(
                f"{name} = {value!r} is unknown: use one of {', '.join(factors[name])}"
            )


def check_labels(labels: Labels, count: int) -> Labels:
    """Returns the labels of `count` images as int32; ValueError if they do not fit the factors."""
    values, classes = np.asarray(labels.values), [len(names) for names in labels.factors.values()]
    if not classes or values.shape != (count, len(classes)):
        shape = f"[{count}, {len(classes)}]"
        raise ValueError(
            f"labels have shape {values.shape}: give {shape} and at least one factor, or"
            " labels=None"
        )
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"labels are {values.dtype}: give integers")
    if count and (np.any(values < 0) or np.any(values.max(0) >= classes)):
        raise ValueError(f"a label is out of range: the factors have {classes} values")
    return Labels(values.astype(np.int32), labels.factors)


class FactorTable(NamedTuple):
    """How often labelled images have each value of each factor; C is the most values of one."""

    given_code: jax.Array  # float32 [K, A, C], log p(value | code), 0 beyond the values of a factor
    overall: jax.Array  # float32 [A, C], log p(value), -inf beyond the values of a factor


def factor_table(space: CodeSpace, codes: np.ndarray, labels: Labels) -> FactorTable:
    """Counts the values of factors in M >= 1 images, of sets or multisets [M, N].

    Each code gets one more image, of average values, so that no probability is zero. Images whose
    value is `UNKNOWN` do not count for that factor.
    """
    classes = [len(names) for names in labels.factors.values()]
    holds = np.minimum(space.multi_hot(codes), 1)
    given = np.zeros((space.codebook_size, len(classes), max(classes)), np.float32)
    overall = np.full((len(classes), max(classes)), -np.inf, np.float32)
    for factor, (count, names) in enumerate(zip(classes, labels.factors.values(), strict=True)):
        column = labels.values[:, factor]
        has = np.eye(count, dtype=np.float32)[column] * is_known(column, names)[:, None]
        share = np.maximum(has.sum(0), 0.5)  # a value that never occurs is rare, not impossible
        share /= share.sum()
        together = holds.T @ has + share
        given[:, factor, :count] = np.log(together / together.sum(1, keepdims=True))
        overall[factor, :count] = np.log(share)
    return FactorTable(jnp.asarray(given), jnp.asarray(overall))


@jax.jit
def read_factors(codes: jax.Array, table: FactorTable) -> jax.Array:
    """Reads the probabilities of values from codes [B, N], as if these were independent given a
    factor (naive Bayes): float32 [B, A, C].
    """
    known = jnp.isfinite(table.overall)
    evidence = table.given_code[codes] - jnp.where(known, table.overall, 0.0)
    return jax.nn.softmax(table.overall + evidence.sum(1))


@functools.partial(jax.jit, static_argnames="space")
def edit(
    space: CodeSpace,
    codebook: jax.Array,
    codes: jax.Array,
    wanted: jax.Array,
    table: FactorTable,
    lift: jax.Array,
) -> jax.Array:
    """Replaces codes [B, N] so that images have the values of factors that `Labels.wanted` gives.
    A code of a multiset is replaced regardless of the others.
    """
    codebook = codebook - codebook.mean(axis=0)
    mean = 2 * jnp.square(codebook).sum(-1).mean()
    distance = squared_distances(codebook[codes], codebook)
    distance /= jnp.maximum(mean, jnp.finfo(jnp.float32).tiny)
    itself = codes[..., None] == jnp.arange(len(codebook))
    # A code is its own best alternative.
    together = jnp.where(itself, lift.min(), lift[codes])

    asked = jnp.arange(table.overall.shape[-1]) == wanted[:, None]
    is_asked = asked.any(-1, keepdims=True)
    goal = jnp.where(is_asked, asked * WANTED_WEIGHT, read_factors(codes, table) * KEPT_WEIGHT)
    fit = jnp.einsum("kac,bac->bk", table.given_code, goal, precision=jax.lax.Precision.HIGHEST)
    cost = jnp.where(itself, 0.0, distance) + LIFT_WEIGHT * together - fit[:, None]

    # The evidence of each code for the wanted values, [B, N, A].
    evidence = jnp.where(asked, table.given_code[codes] - table.overall, 0.0).sum(-1)
    stays = jnp.all(evidence >= LEAST_EVIDENCE, axis=-1)
    cost = jnp.where(stays[..., None] & ~itself, jnp.inf, cost)
    columns = match(cost, space.method).columns if space.distinct else jnp.argmin(cost, axis=-1)
    return space.canonical(columns.astype(jnp.int32))


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
    image_codes = jnp.asarray(codes, jnp.int32)
    image_latents = space.latents_of(image_codes, codebook)
    latents, numbers = np.asarray(image_latents), np.asarray(_numbers(image_latents))
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
    variance = np.maximum(latents.var(0).sum(-1), 1e-12)
    for factor, value in np.ndindex(shape):
        has = labels.values[:, factor] == value
        if not has.any():
            continue
        reader = np.linalg.solve(covariance, numbers[has].mean(0) - mean)
        readers[factor, value] = reader
        offsets[factor, value] = np.log(has.mean()) - reader @ (numbers[has].mean(0) + mean) / 2
        if not has.all():
            apart = np.square(latents[has].mean(0) - latents[~has].mean(0)).sum(-1)
            apart /= variance
            shows[factor, value] = apart >= LEAST_DIFFERENCE * apart.max()
    parts = image_codes, latents, labels.values, shows, readers, offsets
    return PlaceTable(*map(jnp.asarray, parts))


@functools.partial(jax.jit, static_argnames="space")
def read_places(
    space: CodeSpace, codebook: jax.Array, codes: jax.Array, table: PlaceTable
) -> jax.Array:
    """Reads the probabilities of values from codes [B, N] by a linear discriminant (Fisher 1936) of
    their latents: float32 [B, A, C].
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

    Images that are read to have it stay, and so do all if no labelled image has it.
    """
    shows, has = table.shows[factor, value], table.values[:, factor] == value
    latents = space.latents_of(codes, codebook)
    elsewhere = jnp.broadcast_to(~shows, latents.shape[:2])
    donors = most_alike(table.latents, latents, elsewhere, has)
    differs = read_places(space, codebook, codes, table)[:, factor].argmax(-1) != value
    exchanged = differs[:, None] & shows & has.any()
    return exchange_places(space, codebook, codes, table.codes[donors], exchanged)


def _numbers(latents: jax.Array) -> jax.Array:
    """The numbers by which factors are read, float32 [M, F], of latents [M, P, latent_dim]."""
    _, places, size = latents.shape
    kept = min(size, max(1, MOST_NUMBERS // places))
    return latents[..., :kept].reshape(len(latents), places * kept)
