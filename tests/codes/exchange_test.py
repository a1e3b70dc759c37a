"""The exchange of the loss is `recombine` without its options, for all kinds of codes."""

import jax
import numpy as np
import pytest

from pivq_jax.codes.exchange import exchange_some
from pivq_jax.codes.space import CodeSpace
from pivq_jax.sampling import pair_codes, recombine


@pytest.mark.parametrize("kind", ["matching", "nearest", "positional"])
def test_half_is_exchanged_as_in_recombine(kind):
    space, rng = CodeSpace(6, 20, kind), np.random.default_rng(0)
    codebook = rng.normal(size=(20, 3)).astype(np.float32)
    for seed in range(20):
        a, b = (rng.choice(20, 6, replace=kind != "matching") for _ in "ab")
        key = jax.random.key(seed)
        mixed = exchange_some(space, codebook, a, b, key)
        np.testing.assert_array_equal(mixed, recombine(space, codebook, a, b, key))
        assert set(np.asarray(mixed).tolist()) <= {*a, *b}


def test_what_is_coarse_comes_from_one_parent():
    """Numbers of runs are in the last values of entries, in signs, the lowest bit first."""
    count, each = 6, 4
    space = CodeSpace(count, count * each, own_entries=True)
    rng = np.random.default_rng(0)
    runs = np.repeat(np.arange(count), each)
    signs = np.where(runs[:, None] >> np.arange(3) & 1, 8.0, -8.0)
    codebook = np.hstack([rng.normal(size=(count * each, 2)), signs]).astype(np.float32)
    a, b = (np.arange(count) * each + rng.integers(0, each, count) for _ in "ab")
    a, b = a - a % each, b - b % each + 1 + b % (each - 1)  # no code in common
    # Partners are of the same latent, however far apart they are.
    np.testing.assert_array_equal(pair_codes(space, 100 * codebook[::-1], a, b[::-1])[1], b)
    shares = set()
    for seed in range(40):
        mixed = np.asarray(exchange_some(space, codebook, a, b, jax.random.key(seed)))
        first = int(np.sum(mixed == b))
        np.testing.assert_array_equal(mixed, [*b[:first], *a[first:]])
        shares.add(first)
    assert shares == set(range(count + 1))
    for fraction, first in ((0, 0), (0.5, 3), (1, 6)):
        mixed = recombine(space, codebook, a, b, jax.random.key(0), fraction)
        np.testing.assert_array_equal(mixed, [*b[:first], *a[first:]])
