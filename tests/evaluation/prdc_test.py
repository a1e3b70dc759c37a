"""PRDC against the `prdc` package, and what holds for any features."""

import contextlib
import io

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from pivq_jax.common.errors import InputError
from pivq_jax.evaluation import neighbours
from pivq_jax.evaluation.features import Features
from pivq_jax.evaluation.prdc import compare_images, prdc


def package(real, fake, k):
    reference = pytest.importorskip("prdc")
    with contextlib.redirect_stdout(io.StringIO()):
        values = reference.compute_prdc(real, fake, nearest_k=k)
    return tuple(float(values[name]) for name in ("precision", "recall", "density", "coverage"))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# Few shapes and k, because each is compiled: M, L, F, k.
SHAPES = ((60, 60, 16, 5), (97, 41, 64, 1), (40, 300, 2048, 7), (300, 200, 3, 3))


@pytest.mark.parametrize("case", range(20))
def test_equals_the_package_on_random_sets(case):
    rng = np.random.default_rng(case)
    num_real, num_fake, size, k = SHAPES[case % 4]
    real = normal(case, num_real, size)
    fake = np.float32(rng.uniform(0.6, 1.2)) * normal(case + 100, num_fake, size)
    if case // 4 == 1:  # in a subspace, beside a large common offset
        mixing = normal(case + 200, size, size)
        mixing[: -max(2, size // 8)] = 0
        real, fake = real @ mixing + 50, fake @ mixing + 50
    if case // 4 == 2:  # sparse and not negative, as after a ReLU
        real, fake = np.maximum(real - 1, 0), np.maximum(fake - 1, 0)
    if case // 4 == 3:  # clusters
        real += 6 * np.sign(normal(0, 7, size))[rng.integers(0, 7, num_real)]
        fake += 6 * np.sign(normal(0, 7, size))[rng.integers(0, 5, num_fake)]
    assert prdc(real, fake, k) == package(real, fake, k)


def structured():
    """Sets with many equal distances; their float64 products are exact, so ties are ties."""
    rng = np.random.default_rng(7)
    grid = np.stack(np.meshgrid(*[np.arange(5)] * 3), -1).reshape(-1, 3).astype(np.float32)
    sets = rng.permuted(np.tile(np.arange(60) < 9, (240, 1)), axis=1).astype(np.float32)
    coarse = np.round(normal(1, 100, 16) * 8) / 8
    return {
        "a lattice against itself moved": (grid, grid + np.float32(0.5), 5),
        "a lattice and some of its points": (grid, grid[::3], 3),
        "code sets as 0 and 1": (sets[:120], sets[120:], 5),
        "identical sets": (normal(2, 100, 64), normal(2, 100, 64), 5),
        "identical lattices": (grid, grid, 6),
        "copies, fewer than k": (np.repeat(normal(3, 40, 32), 3, 0), normal(3, 40, 32), 5),
        "copies, more than k": (np.repeat(coarse[:20], 8, 0), np.repeat(coarse[15:40], 7, 0), 5),
        "all fakes the same": (coarse, np.tile(coarse[:1], (50, 1)), 5),
        "all images the same": (np.ones((30, 8), np.float32), np.ones((20, 8), np.float32), 3),
        "far apart": (normal(4, 50, 16), normal(5, 50, 16) + 1000, 5),
        "equidistant": (np.eye(40, dtype=np.float32), 2 * np.eye(40, dtype=np.float32), 5),
        "one feature": (np.arange(30)[:, None] % 11, np.arange(25)[:, None] % 7, 4),
    }


@pytest.mark.parametrize("name", structured())
def test_equals_the_package_on_structured_sets(name):
    real, fake, k = structured()[name]
    real, fake = real.astype(np.float32), fake.astype(np.float32)
    assert prdc(real, fake, k) == package(real, fake, k)


def test_k_or_more_copies_leave_an_empty_ball():
    # The package compares rounding noise here, and its values change with the order of images.
    rng = np.random.default_rng(1)
    images = normal(1, 20, 64)
    real, fake = images[rng.integers(0, 20, 97)], images[rng.integers(0, 20, 41)]
    orders = [(rng.permutation(97), rng.permutation(41)) for _ in range(3)]
    values = {prdc(real[a], fake[b], 3) for a, b in orders}
    assert len(values) == 1
    wide = [x.astype(np.float64) for x in (real, fake)]

    def squared(x, y):
        return np.stack([np.square(row - y).sum(1) for row in x])

    between = squared(*wide)
    radii = [np.sort(squared(x, x), 1)[:, 3] for x in wide]
    in_real, in_fake = between < radii[0][:, None], between < radii[1]
    expected = (
        in_real.any(0).mean(),
        in_fake.any(1).mean(),
        in_real.sum(0).mean() / 3,
        in_real.any(1).mean(),
    )
    assert values.pop() == pytest.approx(expected, abs=1e-12)


def test_near_ties_are_settled_as_the_package_rounds_them():
    # The middle real image's ball has radius 1; fakes lie a few float32 steps around its border.
    steps = np.arange(-40, 41)
    angle = steps.astype(np.float64)[:, None] * 0.07
    radius = 1.0 + steps[:, None] * 2.0**-28
    fake = (np.hstack([np.cos(angle), np.sin(angle)]) * radius).astype(np.float32)
    real = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
    lengths = np.linalg.norm(fake.astype(np.float64), axis=1).astype(np.float32)
    assert min(np.sum(lengths < 1), np.sum(lengths == 1), np.sum(lengths > 1)) > 5
    # k = 1: all real radii are 1. The package needs a sixth image: two, far away.
    real = np.vstack([real, [[50, 0], [51, 0]]]).astype(np.float32)
    assert prdc(real, fake, 1) == package(real, fake, 1)


@hypothesis.given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from([-20, -3, 1, 30]))
@hypothesis.settings(max_examples=15)
def test_order_scale_and_sign_do_not_matter(seed, k, exponent):
    rng = np.random.default_rng(seed)
    real, fake = normal(seed, 60, 16), 0.9 * normal(seed + 1, 60, 16)
    fake[:10] = real[:10]
    values = prdc(real, fake, k)
    assert prdc(rng.permutation(real), rng.permutation(fake), k) == values
    order = rng.permutation(16)
    factor = np.float32(-(2.0**exponent))
    assert prdc(factor * real[:, order], factor * fake[:, order], k) == values


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda r, f: (r[:5], f, 5), "real features are of 5 images: at least 6"),
        (lambda r, f: (r, f, 0), "k = 0"),
        (lambda r, f: (r, f[:, :8], 5), "16 and 8 numbers"),
        (lambda r, f: (r[:, :0], f[:, :0], 5), "shape"),
        (lambda r, f: (r, f.astype(str), 5), "dtype"),
        (lambda r, f: (r, f * np.float32(1e20), 5), "fake features of image 0 .* beyond"),
        (lambda r, f: (r, np.where(f == f[7, 3], np.nan, f), 5), "fake features of image 7"),
    ],
)
def test_bad_input_is_named(change, words):
    with pytest.raises(InputError, match=words):
        prdc(*change(normal(0, 20, 16), normal(1, 20, 16)))


def test_blocks_are_of_a_bounded_size_and_change_no_value(monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK_SIZE", 2_000)
    blocks = list(neighbours.row_blocks(200, 90, ""))
    sizes = [rows.stop - rows.start for rows in blocks]
    assert max(sizes) == 2_000 // 90 and sum(sizes) == 200
    real, fake = normal(0, 200, 8), 0.95 * normal(1, 90, 8)
    assert prdc(real, fake, 5) == package(real, fake, 5)


def test_fid_and_prdc_are_those_of_their_packages_also_of_quadrants(pytorch_fid):
    real, fake = normal(0, 60, 8), 1.1 * normal(1, 50, 8) + np.float32(0.3)
    quadrants = normal(2, 60, 12), normal(3, 50, 12)
    found = compare_images(*map(Features, (real, fake), quadrants), 3)
    assert found.pop("quadrants") == prdc(*quadrants, 3)._asdict()
    assert list(found) == ["fid", "precision", "recall", "density", "coverage"]
    assert tuple(found.values())[1:] == package(real, fake, 3)
    moments = [(x.mean(0), np.cov(x, rowvar=False)) for x in (real, fake)]
    expected = pytorch_fid(*moments[0], *moments[1])
    assert found["fid"] == pytest.approx(expected, rel=1e-4)
