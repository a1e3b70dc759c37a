"""The prior over sets in arithmetic that is the same on every machine, to the last bit.

Products of matrices are those of integers, held as float64, whose sums stay below 2**53 and are
exact in any order. Everything else is +, -, *, /, square root, rounding and comparison of pairs of
float64, which IEEE 754 defines, and sums have a fixed order. docs/codec_format.md describes every
step.
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from flax import traverse_util

from pivq_jax.codec.container import prior_fingerprint
from pivq_jax.codec.stack import PRECISION
from pivq_jax.common.errors import InputError
from pivq_jax.sampling import Prior

TOTAL = 1 << PRECISION  # of the frequencies of all entries

# Factors of a product are in units of 2**-16 and beyond +-2**10 cut off, so at most 2**26 units.
# The bounds below keep all sums of products to at most 2**52 units of 2**-32.
_ONE, _LARGEST, _UNIT = 2.0**16, 2.0**10, 2.0**-32
_MAX_COLUMN = 2.0**10  # of the absolute sum of each column of a kernel
_MAX_SCORE = 2.0**19  # of the products of queries and keys
_MAX_CODES = 2**10  # weights of attention are at most 1 for each
_MAX_ENTRIES = 2**20  # each gets at least one of the 2**24
_NORM_EPSILON = 1e-6  # as in `model.primitives`
# Vectors of the network that are computed at once: few enough for a processor's cache.
_AT_ONCE = 256

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Arrays = Mapping[str, Floats]


class ExactPrior:
    """A prior over sets of `num_codes` codes; one whose sums might not be exact is refused."""

    def __init__(self, prior: Prior | None, num_codes: int) -> None:
        if prior is None:
            raise InputError(
                "this model has no prior to code with: train one with pivq_jax.prior train, or use"
                " the fixed code"
            )
        network = prior.network
        if num_codes > _MAX_CODES or network.codebook_size > _MAX_ENTRIES:
            raise InputError(
                f"sets of {num_codes:,} of {network.codebook_size:,} entries cannot be coded by a"
                f" prior, but those of up to {_MAX_CODES:,} of {_MAX_ENTRIES:,}: use the fixed code"
            )
        self.num_codes, self.fingerprint = num_codes, prior_fingerprint(prior.params)
        self._heads, self._blocks = network.heads, [f"block_{i}" for i in range(network.depth)]
        flat = traverse_util.flatten_dict(prior.params, sep="/")
        self._arrays = {name: np.asarray(array, np.float64) for name, array in flat.items()}
        for name, array in self._arrays.items():
            if name.endswith("/kernel"):
                self._arrays[name] = np.rint(array * _ONE)  # integers [I, O]
                column = float(np.abs(self._arrays[name]).sum(0).max()) / _ONE
                _check_sums(name, column, _MAX_COLUMN)
        for block in self._blocks:
            norms = (f"{block}/self_attention/{name}" for name in ("query_norm", "key_norm"))
            score = math.prod(_longest(self._arrays, name) for name in norms)
            _check_sums(f"{block}/self_attention/query_norm and key_norm", score, _MAX_SCORE)

    def frequencies(self, known: npt.ArrayLike) -> Integers:
        """Returns how likely each entry is to be a missing code, int64 [B, K]; a row sums to 2**24.

        `known` are integers [B, m], m < N, sorted and distinct. Known codes have 0, all others at
        least 1; a row depends on nothing but its own set.
        """
        known = np.asarray(known, np.int64)
        logits = self.logits(known)
        allowed = np.ones(logits.shape, np.int64)
        np.put_along_axis(allowed, known, 0, axis=1)
        logits = np.where(allowed, logits, -np.inf)
        weights = np.rint(_exp(logits - logits.max(-1, keepdims=True)) * TOTAL)
        weights = weights.astype(np.int64) * allowed
        free = TOTAL - allowed.sum(-1, keepdims=True)
        shares = allowed + weights * free // weights.sum(-1, keepdims=True)
        # What rounding down leaves goes to the most frequent entry, the first one of several.
        shares[np.arange(len(shares)), weights.argmax(-1)] += TOTAL - shares.sum(-1)
        return shares

    def logits(self, known: Integers) -> Floats:
        """Computes the network: float64 [B, K], the logits of all entries, known or not."""
        size = max(1, _AT_ONCE // (known.shape[1] + 1))
        parts = [self._logits_of(known[i : i + size]) for i in range(0, len(known), size)]
        return np.concatenate(parts)

    def _logits_of(self, known: Integers) -> Floats:
        (count, given), arrays = known.shape, self._arrays
        # All missing codes are the same vector, and stay so: one stands for them.
        missing = np.broadcast_to(arrays["missing"], (count, 1, len(arrays["missing"])))
        x = np.concatenate([arrays["codes/embedding"][known], missing], axis=1)
        multiplicity = np.ones(given + 1)
        multiplicity[given] = self.num_codes - given
        for block in self._blocks:  # see `model.layers.Block`
            y = _norm(arrays, f"{block}/self_attention_norm", x)
            x = x + _attention(arrays, f"{block}/self_attention", self._heads, y, multiplicity)
            y = _dense(arrays, f"{block}/mlp/hidden", _norm(arrays, f"{block}/mlp_norm", x))
            x = x + _dense(arrays, f"{block}/mlp/out", _gelu(y))
        total = _sum((x * multiplicity[:, None]).transpose(0, 2, 1))[..., 0]
        return _dense(arrays, "logits", _norm(arrays, "norm", total / self.num_codes))


def _dense(arrays: Arrays, name: str, x: Floats) -> Floats:
    return _integers(x) @ arrays[f"{name}/kernel"] * _UNIT + arrays[f"{name}/bias"]


def _norm(arrays: Arrays, name: str, x: Floats) -> Floats:
    scale, bias = arrays[f"{name}/scale"], arrays[f"{name}/bias"]  # [W]
    y = x - _sum(x) / len(scale)
    return y / np.sqrt(_sum(y * y) / len(scale) + _NORM_EPSILON) * scale + bias


def _longest(arrays: Arrays, name: str) -> float:
    """A bound of the Euclidean length of results of `_norm`."""
    scale, bias = arrays[f"{name}/scale"], arrays[f"{name}/bias"]
    spread = math.sqrt(len(scale)) * float(np.abs(scale).max())
    return spread + float(np.sqrt((bias**2).sum()))


def _attention(arrays: Arrays, name: str, heads: int, x: Floats, multiplicity: Floats) -> Floats:
    """Attention within x [B, T, W], of which vector t is there multiplicity[t] times."""
    query, key, value = (
        _dense(arrays, f"{name}/{what}", x).reshape(*x.shape[:2], heads, -1)
        for what in ("query", "key", "value")
    )
    query = _norm(arrays, f"{name}/query_norm", query)
    key = _norm(arrays, f"{name}/key_norm", key)
    # [B, heads, T, size]
    query, key, value = (_integers(y).transpose(0, 2, 1, 3) for y in (query, key, value))
    scores = query @ key.transpose(0, 1, 3, 2) * _UNIT / math.sqrt(query.shape[-1])
    scores = scores - scores.max(-1, keepdims=True)
    weights = np.rint(_exp(scores) * _ONE) * multiplicity
    y = weights @ value / weights.sum(-1, keepdims=True) / _ONE  # sums of integers
    return _dense(arrays, f"{name}/out", y.transpose(0, 2, 1, 3).reshape(x.shape))


def _integers(x: Floats) -> Floats:
    """Numbers in units of 2**-16, rounded and cut off; see `_LARGEST`."""
    limit = _LARGEST * _ONE
    return np.clip(np.rint(x * _ONE), -limit, limit)


def _sum(x: Floats) -> Floats:
    """Sums over the last axis, which is kept: its second half is added to the first, and so on."""
    while (length := x.shape[-1]) > 1:
        half = length // 2
        y = x[..., :half] + x[..., half : 2 * half]
        if length % 2:
            y[..., 0] += x[..., -1]
        x = y
    return x


def _exp(x: Floats) -> Floats:
    """Approximates e**x by the 256th power of a polynomial; x is cut off at -40 and 40."""
    t = np.clip(x, -40.0, 40.0) * 2.0**-8
    y = (((t * (1 / 24) + 1 / 6) * t + 1 / 2) * t + 1.0) * t + 1.0
    for _ in range(8):
        y = y * y
    return y


def _gelu(x: Floats) -> Floats:
    """GELU in its tanh form, x / (1 + e**(-2 u)) with u = sqrt(2 / pi) (x + 0.044715 x**3)."""
    u = (x * x * 0.044715 + 1.0) * x
    return x / (_exp(u * (-2 * 0.7978845608028654)) + 1.0)


def _check_sums(what: str, value: float, limit: float) -> None:
    if value > limit:
        raise InputError(
            f"the prior cannot be computed alike on every machine: its {what} allow sums of"
            f" {value:,.0f}, more than {limit:,.0f}: use the fixed code"
        )
