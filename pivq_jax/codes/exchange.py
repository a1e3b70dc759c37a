"""The exchange of codes of two images, and that of some of them, as the loss makes it."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pivq_jax.codes.pairing import pair, rank_of_pairs
from pivq_jax.codes.space import CodeSpace


def beside_hyperplane(
    space: CodeSpace,
    codes_a: jax.Array,
    partners: jax.Array,
    codebook: jax.Array,
    key: jax.Array,
    fraction: ArrayLike,
) -> jax.Array:
    """Chooses the pairs on one side of a random hyperplane, bool [B, N].

    Codes are int32 [B, N] as `pair_codes` returns them, the codebook is float32 [K, D]. Of the P
    pairs of an image, round(fraction * P) are chosen; each image folds its number into `key`. Where
    latents have entries of their own, coarse latents first, no direction is drawn: their numbers
    are in the last values of entries, as signs.
    """
    images, paired = jnp.arange(len(codes_a)), codes_a != partners
    middles = codebook[codes_a] + codebook[partners]  # times two: only their order matters
    keys = jax.vmap(partial(jax.random.fold_in, key))(images)
    size = codebook.shape[1:]
    if space.own_entries:
        bits = (space.num_codes - 1).bit_length()
        normal = jnp.zeros(size).at[-bits:].set(2.0 ** jnp.arange(bits))
        normals = jnp.broadcast_to(normal, (len(codes_a), *size))
    else:
        normals = jax.vmap(lambda own: jax.random.normal(own, size, jnp.float32))(keys)
    score = jnp.einsum("bnd,bd->bn", middles, normals, precision=jax.lax.Precision.HIGHEST)
    pairs = paired.sum(-1, keepdims=True)
    return paired & (rank_of_pairs(score, paired) < jnp.round(fraction * pairs))


def exchange(
    space: CodeSpace,
    codebook: ArrayLike,
    codes_a: ArrayLike,
    codes_b: ArrayLike,
    choose: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    lift: jax.Array | None = None,
) -> jax.Array:
    """Exchanges the codes of A that are chosen for their partners in B, with which they are paired.

    Codes are int [..., N], the codebook is float [K, D]; `pair` has the log lift. `choose` maps the
    codes of A and their partners, int32 [B, N], and the codebook, float32, to bool [B, N]. Returns
    int32 [..., N], in canonical order. Raises ValueError if shapes are wrong or codes no integers.
    """
    codes_a, codes_b, codebook = space.check_pair(codes_a, codes_b, codebook)
    first, partners, _ = pair(space, codebook, codes_a, codes_b, lift)
    chosen = choose(first, partners, codebook)
    return space.canonical(jnp.where(chosen, partners, first)).reshape(codes_a.shape)


def exchange_some(
    space: CodeSpace, codebook: jax.Array, codes_a: jax.Array, codes_b: jax.Array, key: jax.Array
) -> jax.Array:
    """Exchanges half of the differing codes of two images, as `sampling.recombine` by default.

    Where latents have entries of their own, it is any share of them. Codes are int32 [N], the
    codebook is float32 [K, D]. Returns int32 [N].
    """
    fraction = jax.random.uniform(key) if space.own_entries else 0.5
    choose = partial(beside_hyperplane, space, key=key, fraction=fraction)
    return exchange(space, codebook, codes_a, codes_b, choose)
