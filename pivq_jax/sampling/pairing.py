"""Pairing of the codes of two images: which code of A corresponds to which code of B.

Codes that both images contain are paired with themselves. The remaining codes of A are paired
one-to-one with the remaining codes of B at minimum total squared distance in codebook space. As
these two sets have no code in common, any of the pairs may be exchanged and the result is a valid
set.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from pivq_jax.matching import match
from pivq_jax.model.quantizer import KINDS, squared_distances

# Weight of a log lift of 1 relative to the mean squared distance of two codebook entries. Distances
# alone and lifts alone pair slightly worse (docs/log/2026-11-27-exchange.md).
LIFT_WEIGHT = 1 / 16


def pair_codes(
    codes_a: jax.typing.ArrayLike,
    codes_b: jax.typing.ArrayLike,
    codebook: jax.typing.ArrayLike,
    kind: str = "matching",
    method: str = "auto",
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the partner in B of each code of A: the pairs that `recombine` and `interpolate`
    exchange.

    Args:
        codes_a: int [..., N]; see `recombine`.
        codes_b: int [..., N].
        codebook: float [K, D], finite.
        kind: see `recombine`.
        method: see `recombine`.

    Returns:
        A tuple of the codes of A in canonical order, int32 [..., N]; their partners in B, int32
        [..., N], equal to the codes of A where both images contain the code; and the squared
        distance in codebook space of each code to its partner, float32 [..., N].

    Raises:
        ValueError: see `recombine`.
        TypeError: see `recombine`.
    """
    codes_a, codes_b, codebook = check_codes(codes_a, codes_b, codebook, kind)
    shape = codes_a.shape
    first, partners, cost = pair(codes_a, codes_b, codebook, kind, method)
    return first.reshape(shape), partners.reshape(shape), cost.reshape(shape)


def canonical(codes: jax.Array, kind: str) -> jax.Array:
    """Returns codes in canonical order: sorted, except for `positional`, which keeps positions.

    Args:
        codes: int [..., N].
        kind: `matching`, `nearest` or `positional`.

    Returns:
        int [..., N].
    """
    return codes if kind == "positional" else jnp.sort(codes, axis=-1)


@functools.partial(jax.jit, static_argnames=("kind", "method"))
def pair(
    codes_a: jax.Array,
    codes_b: jax.Array,
    codebook: jax.Array,
    kind: str,
    method: str,
    lift: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pairs each code of A with a code of B; codes in common are paired with themselves.

    The remaining codes of A and B have no code in common (as multisets, too), so `codes_a !=
    partners` marks the codes that can be exchanged. Returns A in canonical order, the partners and
    the squared distances, [B, N]: leading axes are flattened to B.
    """
    n = codes_a.shape[-1]
    codes_a = canonical(codes_a.reshape(-1, n), kind)
    codes_b = canonical(codes_b.reshape(-1, n), kind)
    # Distances do not depend on the origin; around the mean the expanded square is most accurate.
    codebook = codebook - codebook.mean(axis=0)
    if kind == "positional":
        difference = codebook[codes_a] - codebook[codes_b]
        return codes_a, codes_b, jnp.square(difference).sum(-1)

    distance = squared_distances(codebook[codes_a], codebook[codes_b])
    cost = distance
    if lift is not None:
        mean = 2 * jnp.square(codebook).sum(-1).mean()
        together = lift[codes_a[:, :, None], codes_b[:, None, :]]
        cost = distance / jnp.maximum(mean, jnp.finfo(jnp.float32).tiny) + LIFT_WEIGHT * together
    # Minimizing the total cost alone may pair a common code with another one. To pair it with
    # itself, all other entries of its row and column are forbidden; one matching then suffices.
    same = (codes_a[:, :, None] == codes_b[:, None, :]) & (
        _copy_number(codes_a)[:, :, None] == _copy_number(codes_b)[:, None, :]
    )
    taken = same.any(-1, keepdims=True) | same.any(-2, keepdims=True)
    cost = jnp.where(same, 0.0, jnp.where(taken, jnp.inf, cost))
    columns = match(cost, method).columns
    distance = jnp.where(same, 0.0, distance)
    pair_cost = jnp.take_along_axis(distance, columns[..., None], axis=-1)[..., 0]
    return codes_a, jnp.take_along_axis(codes_b, columns, axis=-1), pair_cost


def rank_of_pairs(score: jax.Array, paired: jax.Array) -> jax.Array:
    """Ranks the pairs [B, N] of each image by ascending score; codes without a pair rank last."""
    order = jnp.argsort(jnp.where(paired, score, jnp.inf), axis=-1)
    return jnp.argsort(order, axis=-1)


def _copy_number(codes: jax.Array) -> jax.Array:
    """Returns the number of equal codes before each code of a sorted int32 [B, N]; 0 for sets."""
    places = jnp.arange(codes.shape[-1])
    equal_before = (codes[:, :, None] == codes[:, None, :]) & (places[:, None] > places[None, :])
    return equal_before.sum(-1)


def check_codes(
    codes_a: jax.typing.ArrayLike,
    codes_b: jax.typing.ArrayLike,
    codebook: jax.typing.ArrayLike,
    kind: str,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Checks arguments by shape, dtype and name, and converts them to int32, int32 and float32."""
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
