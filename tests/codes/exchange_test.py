"""The exchange of the loss is `recombine` without its options, for all kinds of codes."""

import jax
import numpy as np
import pytest

from pivq_jax.codes.exchange import exchange_half
from pivq_jax.codes.space import CodeSpace
from pivq_jax.sampling import recombine


@pytest.mark.parametrize("kind", ["matching", "nearest", "positional"])
def test_half_is_exchanged_as_in_recombine(kind):
    space, rng = CodeSpace(6, 20, kind), np.random.default_rng(0)
    codebook = rng.normal(size=(20, 3)).astype(np.float32)
    for seed in range(20):
        a, b = (rng.choice(20, 6, replace=kind != "matching") for _ in "ab")
        key = jax.random.key(seed)
        mixed = exchange_half(space, codebook, a, b, key)
        np.testing.assert_array_equal(mixed, recombine(space, codebook, a, b, key))
        assert set(np.asarray(mixed).tolist()) <= {*a, *b}
