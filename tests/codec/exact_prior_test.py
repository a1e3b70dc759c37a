"""The exact prior: against plain loops, the network in JAX, and a digest of its results."""

import hashlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from threadpoolctl import threadpool_limits

from pivq_jax.codec import exact_prior
from pivq_jax.codec.exact_prior import TOTAL, ExactPrior
from pivq_jax.common.errors import InputError
from pivq_jax.sampling.prior import Prior, SetPrior
from tests.codec.priors import counted_prior, make_prior, random_prior, uniform_prior

N = 6
NETWORK = SetPrior(codebook_size=20, width=12, depth=2, heads=2)  # sizes that halve unevenly
LARGER = SetPrior(codebook_size=100, width=48, depth=2, heads=3)
WHAT = ("query", "key", "value")


def parts(count: int, known: int, size: int = 20, seed: int = 0) -> np.ndarray:
    """Known codes of some sets."""
    rng = np.random.default_rng(seed)
    return np.sort([rng.permutation(size)[:known] for _ in range(count)], axis=1).astype(int)


def integer(x: float) -> int:
    return min(max(round(x * 2**16), -(2**26)), 2**26)


def total(values: list[float]) -> float:
    while len(values) > 1:
        half = len(values) // 2
        sums = [values[i] + values[half + i] for i in range(half)]
        if len(values) % 2:
            sums[0] += values[-1]
        values = sums
    return values[0]


def exp(x: float) -> float:
    t = min(max(x, -40.0), 40.0) / 256
    y = (((t * (1 / 24) + 1 / 6) * t + 0.5) * t + 1.0) * t + 1.0
    for _ in range(8):
        y = y * y
    return y


def gelu(x: float) -> float:
    return x / (1.0 + exp((x * x * 0.044715 + 1.0) * x * (-2 * 0.7978845608028654)))


def normal(values: list[float], scale: list[float], bias: list[float]) -> list[float]:
    mean = total(values) / len(values)
    centred = [value - mean for value in values]
    spread = math.sqrt(total([c * c for c in centred]) / len(values) + 1e-6)
    return [c / spread * s + b for c, s, b in zip(centred, scale, bias, strict=True)]


def plain(prior: Prior, num_codes: int, known: list[int]) -> tuple[list[float], list[int]]:
    """Logits and frequencies as docs/codec_format.md describes them, number by number."""
    arrays = {
        name: array.astype(float)
        for name, array in traverse_util.flatten_dict(prior.params, sep="/").items()
    }

    def dense(name, x):
        kernel, bias = arrays[f"{name}/kernel"], arrays[f"{name}/bias"]
        factors = [integer(value) for value in x]
        return [
            sum(f * round(w * 2**16) for f, w in zip(factors, column, strict=True)) / 2**32 + b
            for column, b in zip(kernel.T.tolist(), bias.tolist(), strict=True)
        ]

    def norm(name, x):
        return normal(x, arrays[f"{name}/scale"].tolist(), arrays[f"{name}/bias"].tolist())

    def add(a, b):
        return [x + y for x, y in zip(a, b, strict=True)]

    def attend(query, keys, values):
        products = [
            sum(integer(q) * integer(k) for q, k in zip(query, key, strict=True)) for key in keys
        ]
        scores = [product / 2**32 / math.sqrt(len(query)) for product in products]
        weights = [
            round(exp(score - max(scores)) * 2**16) * count
            for score, count in zip(scores, counts, strict=True)
        ]
        return [
            sum(w * integer(v) for w, v in zip(weights, column, strict=True)) / sum(weights) / 2**16
            for column in zip(*values, strict=True)
        ]

    def attention(name, x):
        size = len(x[0]) // prior.network.heads
        rows = []
        project = {what: [dense(f"{name}/{what}", y) for y in x] for what in WHAT}
        for t in range(len(x)):
            mixed = []
            for start in range(0, len(x[0]), size):
                query, keys, values = (
                    [y[start : start + size] for y in project[what]] for what in WHAT
                )
                query = norm(f"{name}/query_norm", query[t])
                keys = [norm(f"{name}/key_norm", key) for key in keys]
                mixed += attend(query, keys, values)
            rows.append(dense(f"{name}/out", mixed))
        return rows

    counts = [1] * len(known) + [num_codes - len(known)]
    x = [arrays["codes/embedding"][code].tolist() for code in known] + [arrays["missing"].tolist()]
    for i in range(prior.network.depth):
        name = f"block_{i}"
        y = [norm(f"{name}/self_attention_norm", each) for each in x]
        x = [add(*pair) for pair in zip(x, attention(f"{name}/self_attention", y), strict=True)]
        y = [norm(f"{name}/mlp_norm", each) for each in x]
        hidden = [[gelu(h) for h in dense(f"{name}/mlp/hidden", each)] for each in y]
        x = [add(y, dense(f"{name}/mlp/out", h)) for y, h in zip(x, hidden, strict=True)]
    channels = list(zip(*x, strict=True))
    mean = [total([v * c for v, c in zip(y, counts, strict=True)]) / num_codes for y in channels]
    logits = dense("logits", norm("norm", mean))
    free = [k for k in range(len(logits)) if k not in known]
    highest = max(logits[k] for k in free)
    weights = {k: round(exp(logits[k] - highest) * 2**24) for k in free}
    left, whole = 2**24 - len(free), sum(weights.values())
    shares = [1 + weights[k] * left // whole if k in weights else 0 for k in range(len(logits))]
    shares[max(free, key=lambda k: (weights[k], -k))] += 2**24 - sum(shares)
    return logits, shares


def assert_plain(prior: Prior, num_codes: int, sets: np.ndarray) -> np.ndarray:
    """Asserts that all is equal to the last bit; returns the frequencies."""
    exact = ExactPrior(prior, num_codes)
    logits, frequencies = zip(*(plain(prior, num_codes, row) for row in sets.tolist()), strict=True)
    assert exact.logits(sets).tolist() == list(logits)
    found = exact.frequencies(sets)
    assert found.dtype == np.int64 and found.tolist() == list(frequencies)
    return found


@pytest.mark.parametrize("width", [1, 12, 125])
def test_what_is_not_a_product_is_that_of_plain_loops(width):
    """To the last bit, which rounding before the next product would hide."""
    rng = np.random.default_rng(width)
    x, scale, bias = (spread * rng.normal(size=(50, width)) for spread in (30, 1, 1))
    found = exact_prior._norm({"n/scale": scale[0], "n/bias": bias[0]}, "n", x)
    expected = [normal(row, scale[0].tolist(), bias[0].tolist()) for row in x.tolist()]
    assert found.tolist() == expected
    assert exact_prior._gelu(x).tolist() == [[gelu(v) for v in row] for row in x.tolist()]
    np.testing.assert_allclose(exact_prior._exp(x), np.exp(np.clip(x, -40, 40)), rtol=3e-4)


@pytest.mark.parametrize("known", [0, 3, 5])
def test_frequencies_are_those_of_plain_loops(known):
    assert_plain(random_prior(NETWORK, seed=known), N, parts(2, known))
    assert_plain(uniform_prior(NETWORK), N, parts(2, known))  # the first one gets the rest


def test_what_is_cut_off_is_as_in_plain_loops():
    """Numbers beyond the range of products, certain choices, rare entries; the largest weights."""
    prior = make_prior(
        NETWORK,
        lambda name, shape: np.random.default_rng(len(name)).normal(size=shape) * 18,
    )
    found = assert_plain(prior, N, parts(3, 4))
    assert (found == 1).any() and found.max() > 0.9 * TOTAL
    prior = make_prior(
        NETWORK,
        lambda name, shape: np.full(shape, 1000 / shape[0] if name.endswith("kernel") else 140.0),
    )
    assert_plain(prior, 1024, np.arange(18)[None])


def test_frequencies_are_those_of_the_network():
    prior = random_prior(LARGER)
    exact, sets = ExactPrior(prior, 9), parts(8, 9, size=100)
    network = jax.jit(prior.network.apply)
    for known in range(9):
        found = exact.frequencies(np.sort(sets[:, :known]))
        given = jnp.broadcast_to(jnp.arange(9) < known, sets.shape)
        logs = np.asarray(network({"params": prior.params}, jnp.asarray(sets), given))
        np.testing.assert_array_equal(found == 0, np.isneginf(logs))
        assert (found.sum(1) == TOTAL).all()
        likely = logs > -8
        np.testing.assert_allclose(np.log(found[likely] / TOTAL), logs[likely], atol=0.01)


def test_results_never_change():
    """What changes them makes files unreadable: it needs a new version of the format."""
    exact, digest = ExactPrior(counted_prior(LARGER), 9), hashlib.sha256()
    for known in range(9):
        sets = parts(30, known, 100)
        digest.update(exact.logits(sets).astype("<f8").tobytes())
        digest.update(exact.frequencies(sets).astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "0026ff19f43028f1"


def test_a_result_depends_neither_on_its_batch_nor_on_the_number_of_threads(monkeypatch):
    prior = random_prior(SetPrior(codebook_size=600, width=128, depth=1, heads=2))
    exact, sets = ExactPrior(prior, 16), parts(20, 12, size=600)
    whole = exact.logits(sets)
    np.testing.assert_array_equal(exact.logits(sets[::-1]), whole[::-1])
    for at_once, threads in ((1, 2), (50, 3), (10**6, 2)):
        monkeypatch.setattr(exact_prior, "_AT_ONCE", at_once)
        with threadpool_limits(threads, user_api="blas"):
            np.testing.assert_array_equal(exact.logits(sets), whole)


@pytest.mark.parametrize(
    "what, words",
    [
        ("mlp/hidden/kernel", "hidden/kernel allow sums of 24,000, more than 1,024.*fixed code"),
        ("y_norm/scale", "query_norm and key_norm allow sums of"),
    ],
)
def test_sums_that_may_not_be_exact_are_refused(what, words):
    prior = make_prior(
        NETWORK, lambda name, shape: np.full(shape, 2000.0 if name.endswith(what) else 1.0)
    )
    with pytest.raises(InputError, match=words):
        ExactPrior(prior, N)


@pytest.mark.parametrize("num_codes, size", [(1025, 2048), (16, 2**20 + 1)])
def test_sizes_beyond_exact_sums_are_refused(num_codes, size):
    with pytest.raises(InputError, match=f"{num_codes:,} of {size:,} entries cannot be coded"):
        ExactPrior(Prior(SetPrior(size, 8, 1, 1), {}, 0.0), num_codes)
