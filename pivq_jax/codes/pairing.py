"""Pairing of the codes of two images: which code of A corresponds to which code of B.

Codes of one place, or of one latent that has entries of its own, are paired with each other. Else
codes that both images contain are paired with themselves. The remaining codes of A are paired
one-to-one with the remaining codes of B at minimum total squared distance in codebook space. As
these two sets have no code in common, any of the pairs may be exchanged and the result is a valid
set.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pivq_jax.codes.space import CodeSpace
from pivq_jax.matching import match
from pivq_jax.model.quantizer import squared_distances

# Weight of a log lift of 1 relative to the mean squared distance of two codebook entries. Distances
# alone and lifts alone pair slightly worse (docs/trials.md).
LIFT_WEIGHT = 1 / 16


def pair_codes(
    space: CodeSpace, codebook: ArrayLike, codes_a: ArrayLike, codes_b: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pairs each code of A with a code of B: the pairs that `recombine` and `interpolate` exchange.

    Returns the codes of A in canonical order; their partners in B, equal to them where both images
    contain the code; and the squared distance of each code to its partner, float32 [..., N].
    """
    codes_a, codes_b, codebook = space.check_pair(codes_a, codes_b, codebook)
    shape = codes_a.shape
    first, partners, cost = pair(space, codebook, codes_a, codes_b)
    return first.reshape(shape), partners.reshape(shape), cost.reshape(shape)


@functools.partial(jax.jit, static_argnames="space")
def pair(
    space: CodeSpace,
    codebook: jax.Array,
    codes_a: jax.Array,
    codes_b: jax.Array,
    lift: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As `pair_codes`, of checked codes, whose leading axes are flattened, and with a log lift."""
    codes_a = space.canonical(codes_a.reshape(-1, space.num_codes))
    codes_b = space.canonical(codes_b.reshape(-1, space.num_codes))
    # Distances do not depend on the origin; around the mean the expanded square is most accurate.
    codebook = codebook - codebook.mean(axis=0)
    if space.ordered or space.own_entries:
        return codes_a, codes_b, jnp.square(codebook[codes_a] - codebook[codes_b]).sum(-1)

    distance = squared_distances(codebook[codes_a], codebook[codes_b])
    cost = distance
    if lift is not None:
        mean = 2 * jnp.square(codebook).sum(-1).mean()
        together = lift[codes_a[:, :, None], codes_b[:, None, :]]
        cost = distance / jnp.maximum(mean, jnp.finfo(jnp.float32).tiny) + LIFT_WEIGHT * together
    # Minimizing the total cost alone may pair a common code with another one. To pair it with
    # itself, all other entries of its row and column are forbidden; one matching then suffices.
    copies = jax.vmap(_copy_number)
    same = (codes_a[:, :, None] == codes_b[:, None, :]) & (
        copies(codes_a)[:, :, None] == copies(codes_b)[:, None, :]
    )
    taken = same.any(-1, keepdims=True) | same.any(-2, keepdims=True)
    cost = jnp.where(same, 0.0, jnp.where(taken, jnp.inf, cost))
    columns = match(cost, space.method).columns
    distance = jnp.where(same, 0.0, distance)
    pair_cost = jnp.take_along_axis(distance, columns[..., None], axis=-1)[..., 0]
    return codes_a, jnp.take_along_axis(codes_b, columns, axis=-1), pair_cost


def rank_of_pairs(score: jax.Array, paired: jax.Array) -> jax.Array:
    """Ranks the pairs [B, N] of each image by ascending score; codes without a pair rank last."""
    order = jnp.argsort(jnp.where(paired, score, jnp.inf), axis=-1)
    return jnp.argsort(order, axis=-1)


def _copy_number(codes: jax.Array) -> jax.Array:
    """Returns the number of equal codes before each code of a sorted int32 [N]; 0 for sets."""
    return jnp.arange(codes.shape[0]) - jnp.searchsorted(codes, codes)
