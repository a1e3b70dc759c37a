"""New images from the codes of real images by recombination and interpolation.

Similar codes are paired (see `pairing`), and some of the pairs are exchanged (see `choice`).
"""

import contextlib
import operator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pivq_jax.codes.exchange import exchange
from pivq_jax.codes.pairing import pair, rank_of_pairs
from pivq_jax.codes.space import CodeSpace
from pivq_jax.sampling.choice import CANDIDATES, choose_pairs
from pivq_jax.sampling.parents import near_parents
from pivq_jax.sampling.prior import Prior

SHARE = 2**32 - 2  # folded into the key of an image, for its share


def recombine(
    space: CodeSpace,
    codebook: ArrayLike,
    codes_a: ArrayLike,
    codes_b: ArrayLike,
    key: jax.Array,
    fraction: ArrayLike = 0.5,
    lift: ArrayLike | None = None,
    prior: Prior | None = None,
    candidates: int = CANDIDATES,
) -> jax.Array:
    """Exchanges the codes of A on one side of a random hyperplane for their partners in B.

    In multisets, the c-th copy of a code in A corresponds to its c-th copy in B; in sequences,
    place n of A is paired with place n of B, unless their codes are equal.

    Args:
        space: the space of the codes.
        codebook: float [K, D].
        codes_a: int [..., N], codes of the images to change.
        codes_b: int [..., N], codes of the images that replacements are taken from.
        key: PRNG key.
        fraction: scalar in [0, 1], may be traced; by default both images contribute equally. Of the
            P pairs of an image, round(fraction * P) are exchanged (halves round to even; about as
            many with `lift`): those whose midpoints in codebook space come first along a random
            direction. 0 returns A and 1 returns B.
        lift: float [K, K], see `log_lift`; not for sequences. With it, codes that are alternatives
            to each other are paired, and the hyperplane's choice is improved by moves of single
            pairs (`improve_exchange`), which change the number of exchanged pairs by at most
            round(P min(fraction, 1 - fraction) / 4).
        prior: a prior, for sets only. With it, several hyperplanes are tried for each image, and
            the choice whose set is most plausible is used.
        candidates: number of hyperplanes tried with a prior, at least 1.

    Returns:
        int32 [..., N], in canonical order.

    Raises:
        ValueError: if shapes are wrong, codes are not integers, a concrete `fraction` is outside
            [0, 1], or `lift` or `prior` does not fit.
    """
    fraction = _check_fraction(fraction)
    lift = _check_lift(space, lift)
    network = prior.network if prior else None
    if network and not (space.distinct and network.codebook_size == space.codebook_size):
        raise ValueError(
            f"a prior over sets of {network.codebook_size} codes judges none of kind"
            f" {space.kind!r} of {space.codebook_size}: give the prior of this model"
        )
    choose = partial(
        choose_pairs,
        space,
        key=key,
        fraction=fraction,
        lift=lift,
        candidates=candidates,
        prior=prior,
    )
    return exchange(space, codebook, codes_a, codes_b, choose, lift)


def recombine_many(
    space: CodeSpace,
    codebook: ArrayLike,
    parents: ArrayLike,
    key: jax.Array,
    fraction: ArrayLike | None = None,
    lift: ArrayLike | None = None,
) -> jax.Array:
    """Recombines two or more parents: the first with the second, the result with the third, etc.

    `parents` are int [P, ..., N]. `fraction` of the codes of the first parent are exchanged in
    total, by default (P - 1) / P, so that all parents contribute equally. The fractions of the
    steps are chosen such that the other parents contribute the same number of codes in the end,
    apart from rounding, from codes that parents have in common, and from changes by log lifts.
    Returns int32 [..., N]. Raises ValueError as `recombine` does, or for fewer than two parents.
    """
    parents = jnp.asarray(parents)
    count = parents.shape[0] if parents.ndim > 1 else 0
    if count < 2:
        raise ValueError(f"parents have shape {parents.shape}: give [P, ..., N] with P >= 2")
    fraction = _check_fraction(fraction, count)
    share = fraction / (count - 1)
    codes = parents[0]
    keys = jax.random.split(key, count - 1)
    for following, parent, own_key in zip(range(count - 2, -1, -1), parents[1:], keys, strict=True):
        # Later parents replace some of this parent's codes; `share` is the fraction that remains.
        kept = 1 - following * share
        step = jnp.minimum(share / kept, 1.0)
        codes = recombine(space, codebook, codes, parent, own_key, step, lift)
    return codes


def recombine_at_random(
    space: CodeSpace,
    codebook: ArrayLike,
    codes: np.ndarray,
    count: int,
    key: jax.Array,
    batch_size: int,
    parents: int = 2,
    fraction: ArrayLike | None = None,
    lift: ArrayLike | None = None,
    nearest_of: int = 1,
    spread: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Recombines the codes of parents drawn at random, in batches.

    Each image has a key of its own, folded from its number, whatever the batch it is in.

    Args:
        space: the space of the codes.
        codebook: float [K, D].
        codes: int [M, N], those of the pool of parents, M >= P.
        count: S, the number of images, at least 1.
        key: PRNG key of the choice of parents and of the exchanges.
        batch_size: number of images recombined at once, at least 1.
        parents: P, the number of different parents per image, at least 2.
        fraction: share of the first parent's codes that is exchanged, see `recombine_many`.
        lift: float [K, K], see `recombine`.
        nearest_of: number of images that the other parents are chosen from, see `near_parents`.
        spread: half the width of the range around `fraction` from which each image draws its own.

    Returns:
        The codes of the new images, int32 [S, N], and the parents of each, int32 [S, P], indices
        into the pool; the first one is the image changed.

    Raises:
        InputError: if the pool is too small, or `count` or `parents` is out of range.
        ValueError: as `recombine` does.
    """
    key_parents, key_mix = jax.random.split(key)
    group_indices = near_parents(space, key_parents, count, codes, codebook, parents, nearest_of)
    fraction = _check_fraction(fraction, parents)
    groups, mixed = np.asarray(group_indices), []
    for start in range(0, count, batch_size):
        # The last batch is filled up, so that all have the same shape.
        rows = np.arange(start, start + batch_size) % count
        keys = jax.vmap(partial(jax.random.fold_in, key_mix))(jnp.asarray(rows))
        chosen = codes[groups[rows]]
        shares = jax.vmap(partial(draw_share, fraction=fraction, spread=spread))(keys)
        recombined = _recombine_groups(space, codebook, chosen, keys, shares, lift)
        mixed.append(np.asarray(recombined))
    return np.concatenate(mixed)[:count], groups


def draw_share(key: jax.Array, fraction: ArrayLike, spread: ArrayLike) -> jax.Array:
    """Draws the share of the codes of an image that are exchanged, f32 [], as samples have it.

    It is uniform within `spread` of `fraction`, both scalars in [0, 1], and cut to [0, 1]. Without
    spread it is `fraction`.
    """
    drawn = jax.random.uniform(jax.random.fold_in(key, SHARE), minval=-1.0)
    return jnp.clip(fraction + spread * drawn, 0, 1)


# Of parents int [B, P, N], each image with a key of its own: int32 [B, N].
_recombine_groups = jax.jit(
    jax.vmap(recombine_many, in_axes=(None, None, 0, 0, 0, None)), static_argnums=0
)


@partial(jax.jit, static_argnames="space")
def exchange_code(
    space: CodeSpace, codebook: ArrayLike, codes_a: ArrayLike, codes_b: ArrayLike, code: ArrayLike
) -> jax.Array:
    """Exchanges a single code of A, an int scalar, for its partner in B: int32 [..., N].

    All its copies in A that are not also in B are exchanged; if there are none, A is returned.
    """
    return exchange(space, codebook, codes_a, codes_b, lambda first, *_: first == code)


@partial(jax.jit, static_argnames=("space", "steps"))
def interpolate(
    space: CodeSpace, codebook: ArrayLike, codes_a: ArrayLike, codes_b: ArrayLike, steps: int
) -> jax.Array:
    """Exchanges the paired codes of A and B one after another, the cheapest pair first.

    Returns int32 [steps, ..., N]: the first step is A, the last one B, so `steps` is at least 2. At
    step s, the cheapest pairs are exchanged such that their share of the total squared distance of
    all pairs is closest to s / (steps - 1), so steps are evenly spaced in codebook space. Pairs
    that are exchanged at one step remain exchanged at all later ones. Raises ValueError if `steps`
    is below 2, and TypeError if it is not an integer.
    """
    codes_a, codes_b, codebook = space.check_pair(codes_a, codes_b, codebook)
    steps = operator.index(steps)
    if steps < 2:
        raise ValueError(f"steps = {steps}, but both ends count: use at least 2 steps")
    shape = codes_a.shape
    first, partners, pair_cost = pair(space, codebook, codes_a, codes_b)
    rank = rank_of_pairs(pair_cost, first != partners)
    # The distance covered halfway through each exchange; common codes cost nothing and rank last.
    cost = jnp.where(first == partners, 0.0, pair_cost)
    earlier = rank[:, None, :] < rank[:, :, None]
    middle = (earlier * cost[:, None, :]).sum(-1) + cost / 2
    step = jnp.arange(steps)[:, None, None]
    reached = step / (steps - 1) * cost.sum(-1, keepdims=True)
    exchanged = jnp.where((step > 0) & (middle <= reached), partners, first)
    return space.canonical(exchanged).reshape(steps, *shape)


def _check_fraction(fraction: ArrayLike | None, parents: int = 2) -> jax.Array:
    """Returns the fraction as float32 or, without one, that of equal shares of all parents."""
    array = jnp.asarray((parents - 1) / parents if fraction is None else fraction, jnp.float32)
    if array.ndim:
        raise ValueError(f"fraction has shape {array.shape}: give a scalar, or vmap over images")
    with contextlib.suppress(jax.errors.ConcretizationTypeError):  # not known under jit
        value = float(array)
        if not 0.0 <= value <= 1.0:  # `not` also refuses NaN
            raise ValueError(f"fraction = {value:g} is outside [0, 1]: use a share of the pairs")
    return array


def _check_lift(space: CodeSpace, lift: ArrayLike | None) -> jax.Array | None:
    if lift is None:
        return None
    if space.ordered:
        raise ValueError("positional codes have no lift: leave lift out")
    lift, size = jnp.asarray(lift, jnp.float32), space.codebook_size
    if lift.shape != (size, size):
        raise ValueError(
            f"lift has shape {lift.shape}, but the codebook has {size} entries: give"
            " the result of log_lift"
        )
    return lift
