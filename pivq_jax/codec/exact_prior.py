"""The prior over sets in arithmetic that is the same on every machine, to the last bit.

Products of matrices are those of integers, held as float64, whose sums stay below 2**53 and are
exact in any order. Everything else is +, -, *, /, square root, rounding and comparison of pairs of
float64, which IEEE 754 defines, and sums have a fixed order. docs/codec.md describes every step.
"""

import math
from collections.abc import Mapping

import jax
import numpy as np
import numpy.typing as npt
from flax import traverse_util

from pivq_jax.codec.fingerprints import prior_fingerprint
from pivq_jax.codec.stack import PRECISION
from pivq_jax.common.errors import InputError
from pivq_jax.sampling import Prior, SetPrior

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

    def __init__(self, prior: Prior, num_codes: int) -> None:
        network = prior.network
        if not isinstance(network, SetPrior):
            raise InputError(
                "sets of models with several stages cannot be coded by a prior: use the short code"
            )
        if num_codes > _MAX_CODES or network.codebook_size > _MAX_ENTRIES:
            raise InputError(
                f"sets of {num_codes:,} of {network.codebook_size:,} entries cannot be coded by a"
                f" prior, but those of up to {_MAX_CODES:,} of {_MAX_ENTRIES:,}: use the short code"
            )
        self.num_codes, self.fingerprint = num_codes, prior_fingerprint(prior.params)
        flat = traverse_util.flatten_dict(jax.device_get(prior.params), sep="/")
        arrays = {name: np.asarray(array, np.float64) for name, array in flat.items()}
        self._codes, self._missing = arrays["codes/embedding"], arrays["missing"]
        self._blocks = [_Block(arrays, f"block_{i}", network.heads) for i in range(network.depth)]
        self._norm, self._last = _Norm(arrays, "norm"), _Dense(arrays, "logits")

    def frequencies(self, known: npt.ArrayLike) -> Integers:
        """Returns how likely each entry is to be a missing code, int64 [B, K]; a row sums to 2**24.

        `known` are integers [B, m], m < N, sorted and distinct. Known codes have 0, all others at
        least 1; a row depends on nothing but its own set.
        """
        known = np.asarray(known, np.int64)
        logits = self.logits(known)
        allowed = np.ones(logits.shape, np.int64)
        np.put_along_axis(allowed, known, 0, axis=1)
        return _shares(logits, allowed)

    def logits(self, known: Integers) -> Floats:
        """Computes the network: float64 [B, K], the logits of all entries, known or not."""
        size = max(1, _AT_ONCE // (known.shape[1] + 1))
        parts = [self._logits_of(known[i : i + size]) for i in range(0, len(known), size)]
        return np.concatenate(parts)

    def _logits_of(self, known: Integers) -> Floats:
        count, given = known.shape
        # All missing codes are the same vector, and stay so: one stands for them.
        missing = np.broadcast_to(self._missing, (count, 1, len(self._missing)))
        x = np.concatenate([self._codes[known], missing], axis=1)
        multiplicity = np.ones(given + 1)
        multiplicity[given] = self.num_codes - given
        for block in self._blocks:
            x = block(x, multiplicity)
        total = _sum((x * multiplicity[:, None]).transpose(0, 2, 1))[..., 0]
        return self._last(self._norm(total / self.num_codes))


class _Dense:
    def __init__(self, arrays: Arrays, name: str) -> None:
        self._kernel = np.rint(arrays[f"{name}/kernel"] * _ONE)  # integers [I, O]
        self._bias = arrays[f"{name}/bias"]  # [O]
        column = float(np.abs(self._kernel).sum(0).max()) / _ONE
        if column > _MAX_COLUMN:
            raise _too_large(f"{name}/kernel", column, _MAX_COLUMN)

    def __call__(self, x: Floats) -> Floats:
        return _integers(x) @ self._kernel * _UNIT + self._bias


class _Norm:
    def __init__(self, arrays: Arrays, name: str) -> None:
        self._scale, self._bias = arrays[f"{name}/scale"], arrays[f"{name}/bias"]  # [W]

    def __call__(self, x: Floats) -> Floats:
        width = len(self._scale)
        y = x - _sum(x) / width
        return y / np.sqrt(_sum(y * y) / width + _NORM_EPSILON) * self._scale + self._bias

    @property
    def longest(self) -> float:
        """A bound of the Euclidean length of results."""
        spread = math.sqrt(len(self._scale)) * float(np.abs(self._scale).max())
        return spread + float(np.sqrt((self._bias**2).sum()))


class _Block:
    """A transformer block, see `model.layers.Block`."""

    def __init__(self, arrays: Arrays, name: str, heads: int) -> None:
        self._heads = heads
        attention, mlp = f"{name}/self_attention", f"{name}/mlp"
        self._attention_norm = _Norm(arrays, f"{attention}_norm")
        self._query = _Dense(arrays, f"{attention}/query")
        self._key = _Dense(arrays, f"{attention}/key")
        self._value = _Dense(arrays, f"{attention}/value")
        self._query_norm = _Norm(arrays, f"{attention}/query_norm")
        self._key_norm = _Norm(arrays, f"{attention}/key_norm")
        self._out = _Dense(arrays, f"{attention}/out")
        self._mlp_norm = _Norm(arrays, f"{mlp}_norm")
        self._hidden, self._mlp_out = _Dense(arrays, f"{mlp}/hidden"), _Dense(arrays, f"{mlp}/out")
        score = self._query_norm.longest * self._key_norm.longest
        if score > _MAX_SCORE:
            raise _too_large(f"{attention}/query_norm and key_norm", score, _MAX_SCORE)

    def __call__(self, x: Floats, multiplicity: Floats) -> Floats:
        """Returns [B, T, W] for x [B, T, W], of which vector t is there multiplicity[t] times."""
        x = x + self._attention(self._attention_norm(x), multiplicity)
        return x + self._mlp_out(_gelu(self._hidden(self._mlp_norm(x))))

    def _attention(self, x: Floats, multiplicity: Floats) -> Floats:
        batch, length, width = x.shape
        size = width // self._heads

        def of_heads(y: Floats) -> Floats:
            return y.reshape(batch, length, self._heads, size)

        query, key, value = (
            _integers(y).transpose(0, 2, 1, 3)  # [B, heads, T, size]
            for y in (
                self._query_norm(of_heads(self._query(x))),
                self._key_norm(of_heads(self._key(x))),
                of_heads(self._value(x)),
            )
        )
        scores = query @ key.transpose(0, 1, 3, 2) * _UNIT / math.sqrt(size)
        scores = scores - scores.max(-1, keepdims=True)
        weights = np.rint(_exp(scores) * _ONE) * multiplicity
        y = weights @ value / weights.sum(-1, keepdims=True) / _ONE  # sums of integers
        return self._out(y.transpose(0, 2, 1, 3).reshape(batch, length, width))


def _shares(logits: Floats, allowed: Integers) -> Integers:
    """Divides 2**24 among the allowed entries, [B, K] with 1 for these, by their logits [B, K]."""
    logits = np.where(allowed, logits, -np.inf)
    weights = (
        np.rint(_exp(logits - logits.max(-1, keepdims=True)) * TOTAL).astype(np.int64) * allowed
    )
    free = TOTAL - allowed.sum(-1, keepdims=True)
    shares = allowed + weights * free // weights.sum(-1, keepdims=True)
    # What rounding down leaves goes to the most frequent entry, the first one of several.
    shares[np.arange(len(shares)), weights.argmax(-1)] += TOTAL - shares.sum(-1)
    return shares


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


def _too_large(what: str, value: float, limit: float) -> InputError:
    return InputError(
        f"the prior cannot be computed alike on every machine: its {what} allow sums of"
        f" {value:,.0f}, more than {limit:,.0f}: use the short code"
    )
