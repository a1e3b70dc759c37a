"""New images from the codes of real ones: recombination and interpolation.

A position-free image is a set of codes, so a new image is made by exchanging some of the codes of
one image for codes of another and decoding the result once: no learned prior, constant time.

Which codes are exchanged matters. Codes that both images hold stay. The rest of A is paired with
the rest of B one-to-one, at the least total squared distance in codebook space, so that an exchange
swaps like for like; each exchanged pair replaces its code of A by its code of B. Every result is
therefore a valid set again: the rest of B holds nothing that A holds.

An attribute of a face is spread over several codes, and a random choice of pairs tears it apart.
Codes that belong together tend to lie near each other, so pairs are exchanged together that lie on
one side of a random hyperplane in codebook space (docs/results.md compares the ways to choose).

Everything has fixed shapes and no host loop. The functions can be called as they are, under `jit`
(`kind` and `steps` static) and under `vmap`.
"""

from __future__ import annotations

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.matching import match
from pivq_jax.quantizer import KINDS


def recombine(
    codes_a: jax.typing.ArrayLike,
    codes_b: jax.typing.ArrayLike,
    codebook: jax.typing.ArrayLike,
    key: jax.Array,
    fraction: jax.typing.ArrayLike = 0.5,
    kind: str = "matching",
) -> jax.Array:
    """Exchanges the paired codes of A on one side of a random hyperplane for their partners in B.

    Args:
      codes_a: int [..., N], values in [0, K); the images that are changed. For `matching` the N
        codes of an image are distinct. Values are not checked: they may be traced.
      codes_b: int [..., N], the images that codes are taken from.
      codebook: float [K, D], finite.
      key: one PRNG key; each image draws with its own key folded out of it, so an image's result
        does not depend on how many others share its batch.
      fraction: scalar in [0, 1], may be traced. Of an image's P pairs, round(fraction * P) are
        exchanged (halves round to even): those whose middle in codebook space comes first along a
        random direction. 0 gives A and 1 gives B.
      kind: `matching` (sets), `nearest` (multisets: the c-th copy of a code in A is common with its
        c-th copy in B) or `positional` (place n of A is paired with place n of B; places that agree
        are not pairs).

    Returns:
      int32 [..., N], sorted, except for `positional`, which keeps the places.

    Raises:
      ValueError: for unequal or wrong shapes, a codebook too small for sets of N, a concrete
        fraction outside [0, 1], or an unknown kind.
      TypeError: for codes that are not integers.
    """
    codes_a, codes_b, codebook = _check(codes_a, codes_b, codebook, kind)
    fraction = _check_fraction(fraction)
    return _recombine(codes_a, codes_b, codebook, key, fraction, kind)


def interpolate(
    codes_a: jax.typing.ArrayLike,
    codes_b: jax.typing.ArrayLike,
    codebook: jax.typing.ArrayLike,
    steps: int,
    kind: str = "matching",
) -> jax.Array:
    """Exchanges the paired codes of A and B one after another, the cheapest pair first.

    Args:
      codes_a: int [..., N], the images at the start; as in `recombine`.
      codes_b: int [..., N], the images at the end.
      codebook: float [K, D], finite.
      steps: number of images along the way, both ends included; static, at least 2.
      kind: as in `recombine`.

    Returns:
      int32 [steps, ..., N]. Row 0 is A and the last row is B, both in canonical order. Row s has
      the cheapest pairs exchanged that together come nearest to s / (steps - 1) of the squared
      distance of all pairs, so rows are evenly spaced in codebook space, and what one row has
      exchanged stays exchanged in all later ones.

    Raises:
      ValueError: for unequal or wrong shapes, a codebook too small for sets of N, fewer than 2
        steps, or an unknown kind.
      TypeError: for codes or steps that are not integers.
    """
    codes_a, codes_b, codebook = _check(codes_a, codes_b, codebook, kind)
    steps = operator.index(steps)
    if steps < 2:
        raise ValueError(f"steps = {steps}, but both ends count: use at least 2 steps")
    return _interpolate(codes_a, codes_b, codebook, steps, kind)


def recombine_many(
    parents: jax.typing.ArrayLike,
    codebook: jax.typing.ArrayLike,
    key: jax.Array,
    fraction: jax.typing.ArrayLike | None = None,
    kind: str = "matching",
) -> jax.Array:
    """Recombines two or more parents: `recombine` the first with the second, that with the third...

    The fractions of these steps are such that in the end all parents but the first have brought in
    equally many codes, up to rounding and to the codes that parents share.

    Args:
      parents: int [P, ..., N], the codes of P >= 2 parents of each new image.
      codebook: float [K, D], finite.
      key: as in `recombine`.
      fraction: scalar in [0, 1]: the share of the first parent's codes that is exchanged, by all
        others together. By default (P - 1) / P, so that all parents count alike.
      kind: as in `recombine`.

    Returns:
      int32 [..., N], as `recombine`.

    Raises:
      ValueError, TypeError: as `recombine`, and for fewer than two parents.
    """
    parents = jnp.asarray(parents)
    count = parents.shape[0] if parents.ndim > 1 else 0
    if count < 2:
        raise ValueError(f"parents have shape {parents.shape}: give [P, ..., N] with P >= 2")
    fraction = _check_fraction((count - 1) / count if fraction is None else fraction)
    share = fraction / (count - 1)
    codes = parents[0]
    keys = jax.random.split(key, count - 1)
    for following, parent, own_key in zip(range(count - 2, -1, -1), parents[1:], keys, strict=True):
        # Those that follow replace a part of what this parent brings in; share is what stays.
        kept = 1 - following * share
        step = jnp.minimum(share / kept, 1.0)
        codes = recombine(codes, parent, codebook, own_key, step, kind)
    return codes


def exchange_code(
    codes_a: jax.typing.ArrayLike,
    codes_b: jax.typing.ArrayLike,
    codebook: jax.typing.ArrayLike,
    code: jax.typing.ArrayLike,
    kind: str = "matching",
) -> jax.Array:
    """Exchanges one code of A for what B has in its stead, like for like.

    Args:
      codes_a: int [..., N], the images that are changed.
      codes_b: int [..., N], the images that the replacement is taken from.
      codebook: float [K, D], finite.
      code: int scalar, the codebook entry. All its copies in A are exchanged that are no common
        code of A and B; where there is none, A is returned.
      kind: as in `recombine`.

    Returns:
      int32 [..., N], as `recombine`.

    Raises:
      ValueError, TypeError: as `recombine`.
    """
    codes_a, codes_b, codebook = _check(codes_a, codes_b, codebook, kind)
    return _exchange_code(codes_a, codes_b, codebook, jnp.asarray(code, jnp.int32), kind)


def pair_codes(
    codes_a: jax.typing.ArrayLike,
    codes_b: jax.typing.ArrayLike,
    codebook: jax.typing.ArrayLike,
    kind: str = "matching",
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What `recombine` and `interpolate` may exchange: the partner in B of each code of A.

    Args:
      codes_a: int [..., N]; as in `recombine`.
      codes_b: int [..., N].
      codebook: float [K, D], finite.
      kind: as in `recombine`.

    Returns:
      codes of A in canonical order, int32 [..., N]; their partners in B, int32 [..., N], which are
      the codes themselves where both images hold them; the squared distance of each to its partner
      in codebook space, float32 [..., N].

    Raises:
      ValueError, TypeError: as `recombine`.
    """
    codes_a, codes_b, codebook = _check(codes_a, codes_b, codebook, kind)
    shape = codes_a.shape
    first, partners, cost = _pair(codes_a, codes_b, codebook, kind)
    return first.reshape(shape), partners.reshape(shape), cost.reshape(shape)


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


@functools.partial(jax.jit, static_argnames="kind")
def _recombine(
    codes_a: jax.Array,
    codes_b: jax.Array,
    codebook: jax.Array,
    key: jax.Array,
    fraction: jax.Array,
    kind: str,
) -> jax.Array:
    shape = codes_a.shape
    codes_a, partners, _ = _pair(codes_a, codes_b, codebook, kind)
    indices = jnp.arange(codes_a.shape[0])
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)
    directions = jax.vmap(lambda k: jax.random.normal(k, codebook.shape[1:]))(keys)
    middles = codebook[codes_a] + codebook[partners]  # twice that: only their order counts
    places = jnp.einsum("bnd,bd->bn", middles, directions, precision=jax.lax.Precision.HIGHEST)
    paired = codes_a != partners
    quota = jnp.round(fraction * paired.sum(-1, keepdims=True))
    exchanged = jnp.where(_rank(places, paired) < quota, partners, codes_a)
    return canonical(exchanged, kind).reshape(shape)


@functools.partial(jax.jit, static_argnames=("steps", "kind"))
def _interpolate(
    codes_a: jax.Array, codes_b: jax.Array, codebook: jax.Array, steps: int, kind: str
) -> jax.Array:
    shape = codes_a.shape
    codes_a, partners, pair_cost = _pair(codes_a, codes_b, codebook, kind)
    rank = _rank(pair_cost, codes_a != partners)
    # How far the exchanges lead when a pair's turn comes; common codes cost nothing and rank last.
    cost = jnp.where(codes_a == partners, 0.0, pair_cost)
    earlier = rank[:, None, :] < rank[:, :, None]
    middle = (earlier * cost[:, None, :]).sum(-1) + cost / 2
    step = jnp.arange(steps)[:, None, None]
    reached = step / (steps - 1) * cost.sum(-1, keepdims=True)
    exchanged = jnp.where((step > 0) & (middle <= reached), partners, codes_a)
    return canonical(exchanged, kind).reshape(steps, *shape)


@functools.partial(jax.jit, static_argnames="kind")
def _exchange_code(
    codes_a: jax.Array, codes_b: jax.Array, codebook: jax.Array, code: jax.Array, kind: str
) -> jax.Array:
    shape = codes_a.shape
    codes_a, partners, _ = _pair(codes_a, codes_b, codebook, kind)
    exchanged = jnp.where(codes_a == code, partners, codes_a)
    return canonical(exchanged, kind).reshape(shape)


@functools.partial(jax.jit, static_argnames="kind")
def _pair(
    codes_a: jax.Array, codes_b: jax.Array, codebook: jax.Array, kind: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gives each code of A its partner in B; common codes are their own partner.

    The rest of A and the rest of B have no code in common (also as multisets), so
    `codes_a != partners` tells the pairs from the common codes.

    Returns:
      A in canonical order, int32 [B, N]; the partners, int32 [B, N]; and the squared distance
      of each to its partner, float32 [B, N].
    """
    n = codes_a.shape[-1]
    codes_a = canonical(codes_a.reshape(-1, n), kind)
    codes_b = canonical(codes_b.reshape(-1, n), kind)
    # Distances do not change with the origin; near the mean the expanded square loses least.
    codebook = codebook - codebook.mean(axis=0)
    if kind == "positional":
        difference = codebook[codes_a] - codebook[codes_b]
        return codes_a, codes_b, jnp.square(difference).sum(-1)

    cost = _squared_distance(codebook[codes_a], codebook[codes_b])
    # The least total cost alone may give a common code away. It is therefore forced onto itself:
    # every other pair in its row and its column is forbidden, and one matching does it all.
    same = (codes_a[:, :, None] == codes_b[:, None, :]) & (
        _copy_number(codes_a)[:, :, None] == _copy_number(codes_b)[:, None, :]
    )
    taken = same.any(-1, keepdims=True) | same.any(-2, keepdims=True)
    cost = jnp.where(same, 0.0, jnp.where(taken, jnp.inf, cost))
    columns = match(cost).columns
    pair_cost = jnp.take_along_axis(cost, columns[..., None], axis=-1)[..., 0]
    return codes_a, jnp.take_along_axis(codes_b, columns, axis=-1), pair_cost


def _rank(score: jax.Array, paired: jax.Array) -> jax.Array:
    """Ranks the pairs of each row by score, ascending; what is not a pair ranks last."""
    order = jnp.argsort(jnp.where(paired, score, jnp.inf), axis=-1)
    return jnp.argsort(order, axis=-1)


def _copy_number(codes: jax.Array) -> jax.Array:
    """Counts, for each code of a sorted int32 [B, N], the equal ones before it: 0 in a set."""
    places = jnp.arange(codes.shape[-1])
    equal_before = (codes[:, :, None] == codes[:, None, :]) & (places[:, None] > places[None, :])
    return equal_before.sum(-1)


def _squared_distance(x: jax.Array, y: jax.Array) -> jax.Array:
    """Squared Euclidean distance of all pairs, float32 [B, N, N], without an [N, N, D] array."""
    product = jnp.einsum("bnd,bmd->bnm", x, y, precision=jax.lax.Precision.HIGHEST)
    norms = jnp.square(x).sum(-1)[:, :, None] + jnp.square(y).sum(-1)[:, None, :]
    squared = norms - 2.0 * product
    return jnp.where(squared < 0, 0.0, squared)  # not maximum(), see `quantizer.squared_distances`


def canonical(codes: jax.Array, kind: str) -> jax.Array:
    """Codes [..., N] in the one order in which they are kept: sorted, `positional` as they are."""
    return codes if kind == "positional" else jnp.sort(codes, axis=-1)


def _check(
    codes_a: jax.typing.ArrayLike,
    codes_b: jax.typing.ArrayLike,
    codebook: jax.typing.ArrayLike,
    kind: str,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Refuses what no shape-only program could handle; returns int32, int32 and float32 arrays."""
    if kind not in KINDS:
        raise ValueError(f"kind = {kind!r} is unknown: use one of {', '.join(KINDS)}")
    codes_a, codes_b, codebook = jnp.asarray(codes_a), jnp.asarray(codes_b), jnp.asarray(codebook)
    if codes_a.shape != codes_b.shape:
        raise ValueError(
            f"codes_a has shape {codes_a.shape} but codes_b has {codes_b.shape}: "
            "give one B image for each A image, with equally many codes"
        )
    if codes_a.ndim < 1 or codes_a.shape[-1] < 1:
        raise ValueError(f"codes have shape {codes_a.shape}: give [..., N] with N >= 1")
    for name, codes in (("codes_a", codes_a), ("codes_b", codes_b)):
        if not jnp.issubdtype(codes.dtype, jnp.integer):
            raise TypeError(f"{name} has dtype {codes.dtype}: give integer codes")
    if codebook.ndim != 2 or 0 in codebook.shape:
        raise ValueError(f"codebook has shape {codebook.shape}: give [K, D], K and D at least 1")
    n, k = codes_a.shape[-1], codebook.shape[0]
    if kind == "matching" and n > k:
        raise ValueError(
            f"{n} distinct codes cannot come from {k} codebook entries: "
            "give the codebook that the codes were made with, or use kind='nearest'"
        )
    return codes_a.astype(jnp.int32), codes_b.astype(jnp.int32), codebook.astype(jnp.float32)


def _check_fraction(fraction: jax.typing.ArrayLike) -> jax.Array:
    array = jnp.asarray(fraction, jnp.float32)
    if array.ndim:
        raise ValueError(f"fraction has shape {array.shape}: give a scalar, or vmap over images")
    if not isinstance(array, jax.core.Tracer):
        value = float(np.asarray(array))
        if not 0.0 <= value <= 1.0:  # also refuses NaN
            raise ValueError(f"fraction = {value:g} is outside [0, 1]: use a share of the pairs")
    return array
