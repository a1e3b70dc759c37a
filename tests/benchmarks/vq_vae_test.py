"""The VQ-VAE beside PI-VQ: the same conditions, and the same rules for samples."""

import os
import sys

import numpy as np
import pytest

from benchmarks import faces_peers
from benchmarks.vq_vae import recombined
from pivq_jax.common.memory import TUNABLES

SIDE, ENTRIES, DIM = 4, 16, 6


def chosen(nearest_of: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Entries, codes of a pool whose images differ much or little, and codes and parents made."""
    rng = np.random.default_rng(0)
    entries = rng.normal(size=(ENTRIES, DIM)).astype(np.float32)
    kinds = rng.integers(0, ENTRIES, (10, SIDE**2))  # of which each image is one, a little changed
    codes = kinds[rng.integers(0, 10, 200)]
    codes = np.where(rng.random(codes.shape) < 0.3, rng.integers(0, ENTRIES, codes.shape), codes)
    return entries, codes, *recombined(entries, codes, 50, 3, nearest_of, 16)


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


@pytest.mark.slow
def test_parents_resemble_each_other_if_the_config_says_so():
    def apart(nearest_of: int) -> float:
        entries, codes, _, parents = chosen(nearest_of)
        assert parents.shape == (50, 2) and (parents[:, 0] != parents[:, 1]).all()
        first, second = entries[codes[parents]].swapaxes(0, 1)
        return float(np.square(first - second).sum(-1).mean())

    assert apart(nearest_of=100) < 0.8 * apart(nearest_of=1)


def test_places_on_one_side_of_a_line_come_from_the_second_parent():
    _, codes, mixed, parents = chosen(nearest_of=1)
    first, second = codes[parents].swapaxes(0, 1)
    differ = first != second
    moved = differ & (mixed == second)
    assert ((mixed == first) | (mixed == second)).all()
    assert (moved.sum(1) >= np.round(differ.sum(1) / 2)).all() and (moved != differ).any(1).all()
    grid = np.stack(np.divmod(np.arange(SIDE**2), SIDE), -1)
    angles = np.linspace(0, 2 * np.pi, 3_600)
    along = grid @ np.stack([np.cos(angles), np.sin(angles)])  # [places, angles]
    for exchanged, kept in zip(moved, differ & ~moved, strict=True):
        assert (along[exchanged].max(0) < along[kept].min(0)).any()
