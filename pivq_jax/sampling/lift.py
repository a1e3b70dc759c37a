"""The log lift of pairs of codes, estimated by counting in the code sets of real images.

Two codes that occur in the same image more often than by chance belong together; two frequent codes
that never do are alternatives to each other. The *log lift* of a pair measures both. It is
log(p(both) / (p(one) p(other))), the pointwise mutual information of their presence (Church and
Hanks 1990). `recombine` uses it to pair the codes of two images and to choose the pairs exchanged.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pivq_jax.codes.space import CodeSpace

BLOCK = 1_024  # number of images counted at once


def log_lift(space: CodeSpace, codes: np.ndarray) -> jax.Array:
    """Computes the log lift of all pairs of codes, i.e. how much they co-occur beyond chance.

    `codes` are integers [M, N], those of M >= 1 images; a few thousand images of the training split
    are enough for the default model. Returns float32 [K, K], symmetric, zero on the diagonal. One
    is added to the observed and to the expected number of images, so pairs of rare codes stay near
    zero. Raises ValueError if there are no images, if their codes are not of this space, or if the
    space is `positional`.
    """
    if space.ordered:
        raise ValueError("positional codes have no lift")
    codes = space.check(codes, distinct=False)
    if not len(codes):
        raise ValueError("there are no codes to count: give those of at least one image")
    size = space.codebook_size
    together = jnp.zeros((size, size), jnp.float32)  # exact below 2^24 images
    for start in range(0, len(codes), BLOCK):
        holds = jnp.asarray(space.multi_hot(codes[start : start + BLOCK]) > 0, jnp.float32)
        together += jnp.matmul(holds.T, holds, precision=jax.lax.Precision.HIGHEST)
    single = jnp.diagonal(together)
    lift = jnp.log((together + 1) / (jnp.outer(single, single) / len(codes) + 1))
    return jnp.where(jnp.eye(size, dtype=bool), 0, lift)


def improve_exchange(
    codes_a: jax.Array, partners: jax.Array, exchanged: jax.Array, lift: jax.Array, slack: ArrayLike
) -> jax.Array:
    """Makes the best move as long as it adds to the plausibility, the sum of the log lifts of all
    pairs of codes: keeps an exchanged pair, exchanges a kept one, or both (Kernighan and Lin 1970).
    The number of exchanged pairs changes by at most `slack`. All arrays are of one image, [N]; a
    code without a partner is its own.
    """
    n = codes_a.shape[0]
    paired = codes_a != partners
    quota = exchanged.sum()
    a_a = lift[codes_a[:, None], codes_a]
    a_b = lift[codes_a[:, None], partners]
    b_b = lift[partners[:, None], partners]
    # The two codes of a pair are never in the set together.
    own = jnp.eye(n, dtype=bool)
    a_a, a_b, b_b = (jnp.where(own, 0.0, table) for table in (a_a, a_b, b_b))
    b_a = a_b.T
    # Symmetric, as all tables but a_b and b_a are. The additional pair stands for none: a move
    # that exchanges or keeps it changes one pair only.
    correction = jnp.pad(a_b + b_a - a_a - b_b, (0, 1))

    def best_move(exchanged: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The pair to keep, the pair to exchange instead, and the gain in plausibility.

        The gain of i and j is change[j] - change[i] + correction[i, j].
        """
        rows = exchanged[:, None]
        with_a = jnp.where(rows, b_a, a_a).sum(0)  # lifts of code i of A with the other codes
        with_b = jnp.where(rows, b_b, a_b).sum(0)
        change = with_b - with_a  # if pair i is exchanged
        more = exchanged.sum() - quota
        forth = jnp.append(
            jnp.where(paired & ~exchanged, change, -jnp.inf),
            jnp.where(more + slack > 0, 0, -jnp.inf),
        )
        back = jnp.append(
            jnp.where(paired & exchanged, -change, -jnp.inf), jnp.where(more < slack, 0, -jnp.inf)
        )
        gains = (forth[:, None] + correction).max(0) + back  # of the best move for each i
        i = jnp.argmax(gains)
        return i, jnp.argmax(forth + correction[i]), gains[i]

    Carry = tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array], jax.Array]

    def worthwhile(carry: Carry) -> jax.Array:
        _, (_, _, gain), moves = carry
        # Gains below the tolerance are rounding errors; the limit is for lifts that are NaN.
        return (gain > 1e-3) & (moves < n * n)

    def move(carry: Carry) -> Carry:
        exchanged, (back, forth, _), moves = carry
        exchanged = exchanged.at[back].set(False, mode="drop").at[forth].set(True, mode="drop")
        return exchanged, best_move(exchanged), moves + 1

    start = (exchanged, best_move(exchanged), jnp.int32(0))
    return jax.lax.while_loop(worthwhile, move, start)[0]
