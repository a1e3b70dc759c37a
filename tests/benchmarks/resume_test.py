"""The comparison of trainings by hashes; `all_test.py` has a slow test of the whole."""

import jax.numpy as jnp

from benchmarks.resume import digest


def test_every_bit_type_and_path_counts():
    tree = {"kernel": jnp.zeros(3), "bias": jnp.ones(2)}
    same = {"bias": jnp.ones(2), "kernel": jnp.zeros(3)}
    assert digest(tree) == digest(same) and len(digest(tree)) == 32
    others = [
        tree | {"kernel": jnp.array([0.0, 0.0, -0.0])},
        tree | {"kernel": jnp.zeros(3, jnp.int32)},
        tree | {"kernel": jnp.zeros((3, 1))},
        {"weight": tree["kernel"], "bias": tree["bias"]},
    ]
    assert len({digest(tree), *map(digest, others)}) == 5
