"""The hint at a faster malloc."""

import sys

from pivq_jax.common.memory import TUNABLES, malloc_hint


def test_the_hint_is_for_training_on_a_cpu_whose_malloc_is_not_set(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.rtld.nns=4")
    assert malloc_hint("cpu").endswith(f"export GLIBC_TUNABLES={TUNABLES}")
    assert malloc_hint("gpu") == ""
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    assert malloc_hint("cpu") == ""
    monkeypatch.delenv("GLIBC_TUNABLES")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert malloc_hint("cpu") == ""
