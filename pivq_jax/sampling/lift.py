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
    """Changes which pairs of two images are exchanged, as long as the set gets more plausible.

    The plausibility of a set is the sum of the log lifts of all pairs of its codes. A move keeps a
    pair that was exchanged, exchanges one that was kept, or does both at once; the best move is
    made until none gains any more (Kernighan and Lin 1970). The number of exchanged pairs changes
    by at most `slack`.

    For example, A has the codes 0, 1, 2, 3 and B, in the order of pairs, 4, 5, 2, 6: code 2 is in
    both images, so its partner is itself. With `exchanged` (True, False, False, False) the set is
    {4, 1, 2, 3}. If 4 never occurs with 3 (a low lift) and 6 often occurs with 1, the best
    move with `slack` 0 keeps pair 0 and exchanges pair 3, for the set {0, 1, 2, 6}. With `slack` 1
    it could also do only one of the two.

    Args:
        codes_a: int32 [N], the codes of A.
        partners: int32 [N], their partners in B; a code without one is its own.
        exchanged: bool [N], pairs that are exchanged at first.
        lift: float32 [K, K], see `log_lift`.
        slack: scalar, at least 0.

    Returns:
        bool [N], the pairs to exchange.
    """
    n = codes_a.shape[0]
    paired = codes_a != partners
    quota = exchanged.sum()

    # x_y[i, j] is the lift of code i of image X with code j of image Y. The two codes of a pair are
    # never in the set together, nor does a code count with itself: zero on the diagonals.
    def between(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.where(jnp.eye(n, dtype=bool), 0.0, lift[x[:, None], y])

    a_a, a_b, b_b = (
        between(codes_a, codes_a),
        between(codes_a, partners),
        between(partners, partners),
    )
    b_a = a_b.T
    # What moving i and j at once gains beyond moving each alone, when one is exchanged and the
    # other is not. Column N, of zeros, stands for no second pair: only pair i is moved.
    together = jnp.pad(a_b + b_a - a_a - b_b, (0, 1))

    def best_move(exchanged: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The pair to keep and the pair to exchange, N for none, and the gain in plausibility."""
        in_set = exchanged[:, None]
        with_a = jnp.where(in_set, b_a, a_a).sum(0)  # lifts of code i of A with the other codes
        with_b = jnp.where(in_set, b_b, a_b).sum(0)  # and those of its partner
        change = with_b - with_a  # of the plausibility, if pair i is exchanged
        more = exchanged.sum() - quota
        # Gains of single moves; the last entry is that of no move. -inf forbids what is not a pair,
        # is already so, or would change the number of exchanged pairs by too much.
        may_exchange, may_keep = paired & ~exchanged, paired & exchanged
        exchange = jnp.where(may_exchange, change, -jnp.inf)
        exchange = jnp.append(exchange, jnp.where(more + slack > 0, 0, -jnp.inf))
        keep = jnp.where(may_keep, -change, -jnp.inf)
        keep = jnp.append(keep, jnp.where(more < slack, 0, -jnp.inf))
        best_with = (exchange[:, None] + together).max(0) + keep  # the best move that keeps pair i
        i = jnp.argmax(best_with)
        j = jnp.argmax(exchange + together[i])
        return i, j, best_with[i]

    Carry = tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array], jax.Array]

    def worthwhile(carry: Carry) -> jax.Array:
        _, (_, _, gain), moves = carry
        # Gains below the tolerance are rounding errors; the limit is for lifts that are NaN.
        return (gain > 1e-3) & (moves < n * n)

    def move(carry: Carry) -> Carry:
        exchanged, (kept, added, _), moves = carry
        # Index N, of no pair, lies outside and changes nothing.
        exchanged = exchanged.at[kept].set(False, mode="drop").at[added].set(True, mode="drop")
        return exchanged, best_move(exchanged), moves + 1

    start = (exchanged, best_move(exchanged), jnp.int32(0))
    return jax.lax.while_loop(worthwhile, move, start)[0]
