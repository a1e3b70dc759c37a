"""The VQ-VAE beside PI-VQ: the same conditions."""

import os
import sys

import pytest

from benchmarks import faces_peers
from pivq_jax.common.memory import TUNABLES


@pytest.mark.parametrize(
    "given, used",
    [
        ("glibc.rtld.nns=4", f"glibc.rtld.nns=4:{TUNABLES}"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_both_are_trained_on_the_cpu_with_the_malloc_of_a_training(given, used, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    monkeypatch.setenv("GLIBC_TUNABLES", given)
    monkeypatch.setattr(sys, "argv", ["faces_peers", "--data=.", "--minutes=0"])
    with pytest.raises(SystemExit):
        faces_peers.main()
    assert (os.environ["JAX_PLATFORMS"], os.environ["GLIBC_TUNABLES"]) == ("cpu", used)
