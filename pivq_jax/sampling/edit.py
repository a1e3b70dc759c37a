"""Edits: the nearest set of codes that shows another value of a factor, by one more matching.

docs/edits.md has the cost of replacing a code by an entry.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.codes.space import CodeSpace
from pivq_jax.common.labels import is_known
from pivq_jax.matching import match
from pivq_jax.model.quantizer import squared_distances

LIFT_WEIGHT, WANTED_WEIGHT, KEPT_WEIGHT = 1 / 3, 2.0, 0.5
# Smaller differences of p(value | code) and p(value) are often chance.
LEAST_EVIDENCE = math.log(3 / 4)


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
            factor, index = list(self.factors).index(name), self.factors[name].index(value)
            if not np.any(self.values[:, factor] == index):  # nothing is known of its codes
                raise ValueError(f"no training image shows {name}={value}")
            result[factor] = index
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
    lift: jax.Array | None,
) -> jax.Array:
    """Replaces codes [B, N] so that images have the values of factors that `Labels.wanted` gives.
    A code of a multiset is replaced regardless of the others.
    """
    codebook = codebook - codebook.mean(axis=0)
    alternatives = codebook[None]
    if space.own_entries:
        alternatives = codebook.reshape(space.num_codes, -1, codebook.shape[1])
    mean = 2 * jnp.var(alternatives, axis=1).sum(-1).mean()
    distance = squared_distances(codebook[codes], codebook)
    distance /= jnp.maximum(mean, jnp.finfo(jnp.float32).tiny)
    every = jnp.arange(len(codebook))
    itself = codes[..., None] == every

    asked = jnp.arange(table.overall.shape[-1]) == wanted[:, None]
    is_asked = asked.any(-1, keepdims=True)
    goal = jnp.where(is_asked, asked * WANTED_WEIGHT, read_factors(codes, table) * KEPT_WEIGHT)
    fit = jnp.einsum("kac,bac->bk", table.given_code, goal, precision=jax.lax.Precision.HIGHEST)
    cost = jnp.where(itself, 0.0, distance) - fit[:, None]
    if lift is not None:  # a code is its own best alternative
        cost += LIFT_WEIGHT * jnp.where(itself, lift.min(), lift[codes])

    # The evidence of each code for the wanted values, [B, N, A].
    evidence = jnp.where(asked, table.given_code[codes] - table.overall, 0.0).sum(-1)
    stays = jnp.all(evidence >= LEAST_EVIDENCE, axis=-1)
    cost = jnp.where(stays[..., None] & ~itself, jnp.inf, cost)
    if space.own_entries:
        entries = alternatives.shape[1]
        cost = jnp.where(codes[..., None] // entries == every // entries, cost, jnp.inf)
    shared = space.distinct and not space.own_entries
    columns = match(cost, space.method).columns if shared else jnp.argmin(cost, axis=-1)
    return space.canonical(columns.astype(jnp.int32))
