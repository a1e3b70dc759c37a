"""The choice of a prior: one of those that recombination makes, and the best of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pivq_jax import sampling
from pivq_jax.sampling import CodeSpace, Prior, SetPrior
from tests.codec.priors import random_prior

B, N, K = 12, 4, 16
# On a line a hyperplane is a point: an image has two halves to exchange, the lower and the upper.
LINE = np.random.default_rng(0).normal(size=(K, 1)).astype(np.float32)
A = np.stack([np.sort(np.random.default_rng(i).permutation(8)[:N]) for i in range(B)])
OTHER = A + 8  # no code in common
KEY = jax.random.key(4)
HALF = N // 2
SPACE = CodeSpace(N, K)


@dataclasses.dataclass(frozen=True)
class Favourites:
    """Stands for a network: to which codes go with those known, it gives more probability."""

    codebook_size: int = K

    def apply(self, variables, codes, known):
        # [K, K]: what each known code says of the others.
        said = jnp.where(known[..., None], variables["params"][codes], 0.0)
        return jax.nn.log_softmax(said.sum(-2))


def recombine(table, a=A, b=OTHER, codebook=LINE, kind="matching", **options):
    prior = Prior(Favourites(), jnp.asarray(table, jnp.float32), bits=0.0)
    space = CodeSpace(N, len(codebook), kind)
    return np.asarray(sampling.recombine(space, codebook, a, b, KEY, prior=prior, **options))


def halves(a, b):
    """The sets that result from either half of the pairs of one image, lower one first."""
    first, partners, _ = (np.asarray(x) for x in sampling.pair_codes(SPACE, LINE, a, b))
    order = np.argsort((LINE[first] + LINE[partners])[:, 0])
    sets = []
    for chosen in (order[:HALF], order[HALF:]):
        row = first.copy()
        row[chosen] = partners[chosen]
        sets.append(sorted(row.tolist()))
    return sets


@pytest.mark.parametrize("wanted", [0, 1])
def test_of_two_halves_the_one_is_exchanged_that_the_prior_knows(wanted):
    # The codes of one half, and only they, go together.
    for i in range(4):
        known, other = halves(A[i], OTHER[i])[:: 1 if wanted == 0 else -1]
        table = np.zeros((K, K))
        table[np.ix_(known, known)] = 5.0
        made = recombine(table, a=A[i : i + 1], b=OTHER[i : i + 1])
        assert made[0].tolist() == known != other


ALIKE = np.tile([0, 1, 4, 5], (200, 1))  # images with the same parents
EIGHT = np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32)
TWICE = np.concatenate([EIGHT, EIGHT + 0.01])  # the partner of k is k + 8


def recombine_alike(table):
    return recombine(table, ALIKE, ALIKE + 8, TWICE, candidates=32)


def test_codes_that_go_together_stay_together():
    # 2 i goes with 2 i + 1. Each parent has two such pairs of codes, and each half may tear them.
    table = 5.0 * (np.arange(K)[:, None] // 2 == np.arange(K) // 2)
    made = {"prior": recombine_alike(table), "none": recombine_alike(0 * table)}
    whole = {
        name: np.mean([sorted(row // 2) == sorted([*(row // 2)[::2]] * 2) for row in sets])
        for name, sets in made.items()
    }
    assert whole["prior"] == 1 and whole["none"] < 0.6
    assert np.all((made["prior"] >= 8).sum(1) == HALF)  # as many are exchanged as ever
    # A prior that finds all sets alike leaves the first choice.
    plain = sampling.recombine(SPACE, TWICE, ALIKE, ALIKE + 8, KEY)
    np.testing.assert_array_equal(made["none"], plain)


B_COMMON = OTHER - 4  # has codes in common with A
CODEBOOK = np.random.default_rng(2).normal(size=(K, 4)).astype(np.float32)
LIFT = sampling.log_lift(SPACE, np.concatenate([A, B_COMMON]))
mix = functools.partial(sampling.recombine, SPACE, CODEBOOK, lift=LIFT)


def test_the_choice_is_one_of_recombine_and_keeps_to_the_fraction():
    # A small network with weights that tell sets apart.
    prior = random_prior(SetPrior(K, width=8, depth=1, heads=2), seed=3, scale=1.0)
    for fraction in (0.0, 0.25, 0.5, 1.0):
        plain = mix(A, B_COMMON, key=KEY, fraction=fraction)
        alone = mix(A, B_COMMON, key=KEY, fraction=fraction, prior=prior, candidates=1)
        np.testing.assert_array_equal(alone, plain)  # the first candidate
        best = np.asarray(mix(A, B_COMMON, key=KEY, fraction=fraction, prior=prior))
        for row_a, row_b, row in zip(A.tolist(), B_COMMON.tolist(), best.tolist(), strict=True):
            a_only = {*row_a} - {*row_b}
            assert len({*row}) == N and {*row_a} & {*row_b} <= {*row} <= {*row_a} | {*row_b}
            assert len(a_only - {*row}) == round(fraction * len(a_only))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "nearest"}, "judges none of kind 'nearest' of 16"),
        ({"codebook": LINE[:14]}, "of kind 'matching' of 14"),
    ],
)
def test_a_prior_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        recombine(np.zeros((K, K)), **change)
