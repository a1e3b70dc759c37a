"""New images from the codes of real ones: recombination.

A position-free image is a set of codes, so a new image is made by exchanging some of the codes of
one image for codes of another and decoding the result once: no learned prior, constant time.

Which codes are exchanged matters. They are paired like for like (`pairing`), and an exchanged pair
replaces its code of A by its code of B. An attribute of a face is spread over several codes, and a
random choice of pairs tears it apart. Codes that belong together tend to lie near each other, so
pairs are exchanged together that lie on one side of a random hyperplane in codebook space
(docs/results.md compares the ways to choose).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pivq_jax.sampling.pairing import canonical, check_codes, pair, rank_of_pairs


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
    codes_a, codes_b, codebook = check_codes(codes_a, codes_b, codebook, kind)
    fraction = _check_fraction(fraction)
    return _recombine(codes_a, codes_b, codebook, key, fraction, kind)


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
    codes_a, codes_b, codebook = check_codes(codes_a, codes_b, codebook, kind)
    return _exchange_code(codes_a, codes_b, codebook, jnp.asarray(code, jnp.int32), kind)


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
    codes_a, partners, _ = pair(codes_a, codes_b, codebook, kind)
    indices = jnp.arange(codes_a.shape[0])
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)
    directions = jax.vmap(lambda k: jax.random.normal(k, codebook.shape[1:]))(keys)
    middles = codebook[codes_a] + codebook[partners]  # twice that: only their order counts
    places = jnp.einsum("bnd,bd->bn", middles, directions, precision=jax.lax.Precision.HIGHEST)
    paired = codes_a != partners
    quota = jnp.round(fraction * paired.sum(-1, keepdims=True))
    exchanged = jnp.where(rank_of_pairs(places, paired) < quota, partners, codes_a)
    return canonical(exchanged, kind).reshape(shape)


@functools.partial(jax.jit, static_argnames="kind")
def _exchange_code(
    codes_a: jax.Array, codes_b: jax.Array, codebook: jax.Array, code: jax.Array, kind: str
) -> jax.Array:
    shape = codes_a.shape
    codes_a, partners, _ = pair(codes_a, codes_b, codebook, kind)
    exchanged = jnp.where(codes_a == code, partners, codes_a)
    return canonical(exchanged, kind).reshape(shape)


def _check_fraction(fraction: jax.typing.ArrayLike) -> jax.Array:
    array = jnp.asarray(fraction, jnp.float32)
    if array.ndim:
        raise ValueError(f"fraction has shape {array.shape}: give a scalar, or vmap over images")
    if not isinstance(array, jax.core.Tracer):
        value = float(np.asarray(array))
        if not 0.0 <= value <= 1.0:  # also refuses NaN
            raise ValueError(f"fraction = {value:g} is outside [0, 1]: use a share of the pairs")
    return array
