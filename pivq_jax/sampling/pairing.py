"""Like for like: which code of one image stands where another image has which.

Codes that both images hold are their own partners. The rest of A is paired with the rest of B
one-to-one, at the least total squared distance in codebook space. The rest of B holds nothing that
A holds, so any of these pairs may be exchanged and the result is a valid set.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from pivq_jax.matching import match
from pivq_jax.model.quantizer import KINDS


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
    codes_a, codes_b, codebook = check_codes(codes_a, codes_b, codebook, kind)
    shape = codes_a.shape
    first, partners, cost = pair(codes_a, codes_b, codebook, kind)
    return first.reshape(shape), partners.reshape(shape), cost.reshape(shape)


def canonical(codes: jax.Array, kind: str) -> jax.Array:
    """Codes [..., N] in the one order in which they are kept: sorted, `positional` as they are."""
    return codes if kind == "positional" else jnp.sort(codes, axis=-1)


@functools.partial(jax.jit, static_argnames="kind")
def pair(
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


def rank_of_pairs(score: jax.Array, paired: jax.Array) -> jax.Array:
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


def check_codes(
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
