"""docs/explorer/pairing.js beside `pivq_jax.sampling`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pivq_jax import sampling
from pivq_jax.codes.pairing import pair, rank_of_pairs
from pivq_jax.model.quantizer import assign
from pivq_jax.sampling import CodeSpace
from tests.explore.node import run_js

KINDS = ("matching", "nearest", "positional")
PAIR = """
const codebook = { values: given.values, size: given.size, dim: given.values.length / given.size };
answer(given.a.map((a, i) => pairCodes(a, given.b[i], codebook, given.kind, given.lift)));
"""
RECOMBINE = """
const dim = given.values.length / given.size;
const codebook = { values: given.values, size: given.size, dim };
answer(given.a.map((a, i) => {
  const pairs = pairCodes(a, given.b[i], codebook, given.kind, given.lift);
  const direction = given.directions.subarray(i * dim, (i + 1) * dim);
  const codes = recombine(pairs, codebook, direction, given.fraction, given.lift);
  return canonical(codes, given.kind);
}));
"""


def draw(rng: np.random.Generator, count: int, n: int, k: int, kind: str) -> np.ndarray:
    """Unsorted codes of images, int32 [count, n]; those of `nearest` contain copies."""
    if kind != "matching":
        return rng.integers(0, k, (count, n)).astype(np.int32)
    return np.stack([rng.permutation(k)[:n] for _ in range(count)]).astype(np.int32)


def related(rng: np.random.Generator, codes: np.ndarray, k: int, kind: str) -> np.ndarray:
    """Codes of other images, of which about half are the same."""
    others = draw(rng, *codes.shape, k, kind)
    for row, other in zip(codes, others, strict=True):
        if kind == "matching":
            fresh = np.setdiff1d(other, row)[: len(row) // 2]
            kept = rng.permutation(row)[: len(row) - len(fresh)]
            other[:] = rng.permutation([*fresh, *kept])
        else:
            same = rng.uniform(size=len(row)) < 0.5
            other[same] = row[same]
    return others


# N and K, number of cases
QUICK = {(16, 512): 40}
MANY = {(16, 512): 500, (4, 9): 250, (6, 7): 250}


@pytest.mark.parametrize(
    "sizes, with_lift",
    [
        (QUICK, False),
        pytest.param(MANY, False, marks=pytest.mark.slow),
        pytest.param(MANY, True, marks=pytest.mark.slow),
    ],
)
def test_it_pairs_what_python_pairs(sizes, with_lift, tmp_path):
    rng = np.random.default_rng(0)
    for (n, k), count in sizes.items():
        codebook = rng.normal(size=(k, 8)).astype(np.float32)
        a = draw(rng, count, n, k, "matching")
        b = related(rng, a, k, "matching")
        lift = rng.normal(size=(k, k)).astype(np.float32) if with_lift else None
        found = paired(tmp_path, a, b, codebook, "matching", lift)
        if with_lift:
            compare_pairs(found, pair(CodeSpace(n, k), codebook, a, b, lift))
        else:
            compare_pairs(found, sampling.pair_codes(CodeSpace(n, k), codebook, a, b))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nearest", "positional"])
def test_it_pairs_multisets_and_places_as_python_does(kind, tmp_path):
    rng = np.random.default_rng(1)
    codebook = rng.normal(size=(9, 4)).astype(np.float32)
    a = draw(rng, 100, 12, 9, kind)
    b = related(rng, a, 9, kind)
    pairs = sampling.pair_codes(CodeSpace(12, 9, kind), codebook, a, b)
    a_sorted, partners, cost = map(np.asarray, pairs)
    found = paired(tmp_path, a, b, codebook, kind)
    # Copies of a code are alike: which of them has which partner is left open.
    for pairs, *row in zip(found, a_sorted, partners, cost, strict=True):
        assert pairs["a"] == row[0].tolist()
        ours, theirs = (sorted(zip(x, y)) for x, y in ((pairs["a"], pairs["b"]), row[:2]))
        assert ours == [tuple(map(int, pair)) for pair in theirs]
        np.testing.assert_allclose(sum(pairs["cost"]), row[2].sum(), rtol=1e-5)


def paired(folder, a, b, codebook, kind, lift=None) -> list[dict]:
    arrays = {"values": codebook} | ({} if lift is None else {"lift": lift})
    given = {"a": a.tolist(), "b": b.tolist(), "size": len(codebook), "kind": kind}
    return run_js("pairing.js", "pairCodes", PAIR, folder, **given, **arrays)


def compare_pairs(found, expected) -> None:
    a, partners, cost = (np.asarray(part) for part in expected)
    assert [pairs["a"] for pairs in found] == a.tolist()
    assert [pairs["b"] for pairs in found] == partners.tolist()
    ours = np.array([pairs["cost"] for pairs in found])
    np.testing.assert_allclose(ours, cost, rtol=1e-4, atol=1e-5)
    assert ((ours == 0) == (a == partners)).all()


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 0.6, 1.0])
@pytest.mark.parametrize("with_lift", [False, True])
def test_it_recombines_as_python_does(with_lift, fraction, tmp_path):
    rng, count, k, dim = np.random.default_rng(2), 60, 64, 8
    codebook = rng.normal(size=(k, dim)).astype(np.float32)
    a = draw(rng, count, 12, k, "matching")
    b = related(rng, a, k, "matching")
    table = np.triu(rng.normal(size=(k, k)), 1).astype(np.float32)
    lift = table + table.T if with_lift else None
    key = jax.random.key(5)
    keys = [jax.random.fold_in(key, i) for i in range(count)]
    directions = np.stack([jax.random.normal(k, (dim,)) for k in keys]).astype(np.float32)
    expected = sampling.recombine(CodeSpace(12, k), codebook, a, b, key, fraction, lift)
    arrays = {"values": codebook, "directions": directions} | ({"lift": lift} if with_lift else {})
    given = {"a": a.tolist(), "b": b.tolist(), "size": k, "kind": "matching", "fraction": fraction}
    names = "canonical, pairCodes, recombine"
    found = run_js("pairing.js", names, RECOMBINE, tmp_path, **given, **arrays)
    assert found == np.asarray(expected).tolist()


@pytest.mark.slow
def test_the_page_interpolates_in_the_order_of_python(tmp_path):
    rng, k = np.random.default_rng(6), 64
    codebook = rng.normal(size=(k, 8)).astype(np.float32)
    a = draw(rng, 50, 12, k, "matching")
    b = related(rng, a, k, "matching")
    found = paired(tmp_path, a, b, codebook, "matching")
    body = "answer(given.pairs.map(exchangeOrder));"
    orders = run_js("state.js", "exchangeOrder", body, tmp_path, pairs=found)
    first, partners, cost = sampling.pair_codes(CodeSpace(12, k), codebook, a, b)
    ranks = np.asarray(rank_of_pairs(cost, first != partners))
    for order, rank, paired_here in zip(orders, ranks, first != partners, strict=True):
        assert order == np.argsort(rank)[: paired_here.sum()].tolist()


def test_the_log_lift_is_that_of_python(tmp_path):
    rng = np.random.default_rng(3)
    codes = np.sort(rng.integers(0, 20, (500, 6)), 1).astype(np.int32)  # with copies
    body = "answer([...logLift(given.codes, 6, 20)]);"
    found = np.reshape(run_js("pairing.js", "logLift", body, tmp_path, codes=codes), (20, 20))
    np.testing.assert_allclose(
        found, sampling.log_lift(CodeSpace(6, 20, "nearest"), codes), atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_quantizes_as_python_does(kind, tmp_path):
    rng = np.random.default_rng(4)
    latents = rng.normal(size=(30, 16, 8)).astype(np.float32)
    codebook = rng.normal(size=(64, 8)).astype(np.float32)
    body = """
    const codebook = { values: given.values, size: 64, dim: 8 };
    answer(Array.from({ length: 30 }, (_, i) =>
      quantize(given.latents.subarray(i * 128, (i + 1) * 128), codebook, given.kind)));
    """
    arrays = {"latents": latents, "values": codebook}
    found = run_js("pairing.js", "quantize", body, tmp_path, kind=kind, **arrays)
    indices, _ = assign(jnp.asarray(latents), jnp.asarray(codebook), kind)
    assert found == np.asarray(CodeSpace(16, 64, kind).canonical(indices)).tolist()


def test_latents_that_are_not_finite_are_refused(tmp_path):
    body = """
    const codebook = { values: new Float32Array(8).map((_, i) => i), size: 4, dim: 2 };
    const outcome = (kind) => {
      try { return quantize(Float32Array.of(1, NaN), codebook, kind); }
      catch (error) { return error.name; }
    };
    answer(given.kinds.map(outcome));
    """
    found = run_js("pairing.js", "quantize", body, tmp_path, kinds=KINDS)
    assert found == ["RangeError"] * 3
