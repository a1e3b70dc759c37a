"""The exchange of codes of two images, and that of half of them, as the loss makes it."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pivq_jax.codes.pairing import pair, rank_of_pairs
from pivq_jax.codes.space import CodeSpace


def beside_hyperplane(
    codes_a: jax.Array,
    partners: jax.Array,
    codebook: jax.Array,
    key: jax.Array,
    fraction: ArrayLike,
) -> jax.Array:
    """Chooses the pairs on one side of a random hyperplane, bool [B, N].

    Codes are int32 [B, N] as `pair_codes` returns them, the codebook is float32 [K, D]. Of the P
    pairs of an image, round(fraction * P) are chosen; each image folds its number into `key`.
    """
    images, paired = jnp.arange(len(codes_a)), codes_a != partners
    middles = codebook[codes_a] + codebook[partners]  # times two: only their order matters
    keys = jax.vmap(partial(jax.random.fold_in, key))(images)
    size = codebook.shape[1:]
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


def exchange_half(
    space: CodeSpace, codebook: jax.Array, codes_a: jax.Array, codes_b: jax.Array, key: jax.Array
) -> jax.Array:
    """Exchanges half of the differing codes of two images, as `sampling.recombine` by default.

    Codes are int32 [N], the codebook is float32 [K, D]. Returns int32 [N].
    """
    choose = partial(beside_hyperplane, key=key, fraction=0.5)
    return exchange(space, codebook, codes_a, codes_b, choose)
