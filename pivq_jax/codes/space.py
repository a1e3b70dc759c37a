"""The space of codes of a model: what an image may consist of, and what follows from that alone."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike

from pivq_jax.codes import enumeration
from pivq_jax.common.errors import InputError
from pivq_jax.config.fields import Config
from pivq_jax.config.sections import KINDS

_AT_ONCE = 4_096  # images that a column of binomials serves
_MAX_CODES = 2**22  # codes, or bytes of ranks, at once


@dataclasses.dataclass(frozen=True)
class CodeSpace:
    """All codes that an image can have: the sets, multisets or sequences of N of K entries.

    It is hashable, so it can be a static argument of `jax.jit`. The entries themselves, the
    codebook, are parameters and are passed along. Raises ValueError if the kind is unknown or a
    size is out of range.

    >>> space = CodeSpace(num_codes=3, codebook_size=10)
    >>> space.num_messages, space.bytes_per_image
    (120, 1)
    >>> space.rank([[0, 1, 2], [0, 1, 3], [7, 8, 9]]).tolist()
    [[0], [1], [119]]
    """

    num_codes: int  # N, at least 1
    codebook_size: int  # K, at least 1; for `matching` at least N
    kind: str = "matching"  # (sets), `nearest` (multisets) or `positional` (sequences)
    method: str = "auto"  # solver of all matchings of codes, see `pivq_jax.matching.match`
    own_entries: bool = False  # each latent has K / N entries of its own, coarse latents first

    def __post_init__(self) -> None:
        n, k = self.num_codes, self.codebook_size
        if self.kind not in KINDS:
            raise ValueError(f"kind = {self.kind!r} is unknown: use one of {', '.join(KINDS)}")
        if n < 1 or k < 1:
            raise ValueError(f"num_codes = {n} and codebook_size = {k}: both must be at least 1")
        if self.distinct and n > k:
            raise ValueError(
                f"{n} distinct codes cannot come from {k} entries: matching needs codebook_size >="
                " num_codes"
            )
        if self.own_entries and k % n:
            raise ValueError(f"{n} latents cannot share {k} entries: give a multiple of {n}")

    @classmethod
    def of(cls, config: Config | Mapping[str, Any]) -> Self:
        """Returns the space of a config, which may be a dictionary."""
        quantizer = config["quantizer"]
        size, kind, method = (quantizer[name] for name in ("codebook_size", "kind", "method"))
        model = config["model"]
        return cls(model["num_codes"], size, kind, method, model["encoder"] == "components")

    @property
    def distinct(self) -> bool:
        """Whether the codes of an image are distinct."""
        return self.kind == "matching"

    @property
    def ordered(self) -> bool:
        """Whether the positions of codes have a meaning."""
        return self.kind == "positional"

    @property
    def lifts(self) -> bool:
        """Whether log lifts improve an exchange: not of places, nor of a latent's own entries."""
        return not self.ordered and not self.own_entries

    @property
    def num_messages(self) -> int:
        """The number of sets, multisets or sequences."""
        if self._digits:
            return self._digits**self.num_codes
        return math.comb(self._entries_of_sets, self.num_codes)

    @property
    def ceiling_bits(self) -> float:
        """The capacity in bits, log2 of `num_messages`."""
        if self._digits:
            return self.num_codes * math.log2(self._digits)
        k, n = self._entries_of_sets, self.num_codes
        log = math.lgamma(k + 1) - math.lgamma(n + 1) - math.lgamma(k - n + 1)
        return max(0.0, log / math.log(2.0))

    @property
    def bytes_per_image(self) -> int:
        """The number of bytes of a rank."""
        return -(-(self.num_messages - 1).bit_length() // 8)

    @property
    def smallest_dtype(self) -> np.dtype:
        """The smallest unsigned integers that hold all codes, to keep or write many of them."""
        return np.min_scalar_type(self.codebook_size - 1)

    def check(
        self, codes: npt.ArrayLike, *, distinct: bool = True, partial: bool = False
    ) -> np.ndarray:
        """Checks codes of images, integers [M, N]; returns them as a NumPy array of their type.

        For `matching`, an image that has a code twice is refused, and so are two codes of one
        latent that has entries of its own, unless `distinct` is False. If `partial`, images may
        have fewer than N codes, but all the same number. Raises ValueError.
        """
        codes, n, k = np.asarray(codes), self.num_codes, self.codebook_size
        fits = codes.ndim == 2 and (codes.shape[1] == n or (partial and codes.shape[1] < n))
        if not fits or not np.issubdtype(codes.dtype, np.integer):
            shape = f"[M, at most {n}]" if partial else f"[M, {n}]"
            raise ValueError(f"codes are {codes.dtype} {codes.shape}: give integers {shape}")
        if codes.size and (codes.min() < 0 or codes.max() >= k):
            raise ValueError(f"codes range from {codes.min()} to {codes.max()}: give [0, {k})")
        if distinct and self.distinct:
            repeats = (np.diff(np.sort(codes, axis=1), axis=1) == 0).any(axis=1)
            if repeats.any():
                raise ValueError(
                    f"image {int(np.argmax(repeats))} repeats a code, but the codes of a set are"
                    " distinct: use kind='nearest' for multisets"
                )
        if distinct and self.own_entries:
            twice = (np.diff(np.sort(codes // self._digits, axis=1), axis=1) == 0).any(axis=1)
            if twice.any():
                raise ValueError(
                    f"image {int(np.argmax(twice))} has two codes of one latent: each of {n}"
                    f" latents has {self._digits} entries of its own, in order"
                )
        return codes

    def check_pair(
        self, codes_a: ArrayLike, codes_b: ArrayLike, codebook: ArrayLike
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Checks shapes and dtypes, as values may be traced; returns int32, int32 and float32."""
        a, b, codebook = jnp.asarray(codes_a), jnp.asarray(codes_b), jnp.asarray(codebook)
        if a.shape != b.shape or a.shape[-1:] != (self.num_codes,):
            raise ValueError(
                f"codes_a has shape {a.shape} and codes_b {b.shape}: give one B image for each A"
                f" image, of {self.num_codes} codes each, [..., {self.num_codes}]"
            )
        if 0 in a.shape:
            raise ValueError(f"codes have shape {a.shape}: give at least one image")
        if not all(jnp.issubdtype(codes.dtype, jnp.integer) for codes in (a, b)):
            raise ValueError(f"codes have dtypes {a.dtype} and {b.dtype}: give integers")
        if codebook.ndim != 2 or codebook.shape[0] != self.codebook_size or not codebook.size:
            raise ValueError(
                f"codebook has shape {codebook.shape}: give [{self.codebook_size}, D], D at least 1"
            )
        return a.astype(jnp.int32), b.astype(jnp.int32), codebook.astype(jnp.float32)

    def alternatives(self, code: int) -> range:
        """The entries that may stand in the place of one: all, or those of the same latent."""
        if not self.own_entries:
            return range(self.codebook_size)
        first = code - code % self._digits
        return range(first, first + self._digits)

    def canonical(self, codes: jax.Array) -> jax.Array:
        """Returns codes, int [..., N], in canonical order: sorted unless `ordered`."""
        return codes if self.ordered else jnp.sort(codes, axis=-1)

    def multi_hot(self, codes: np.ndarray, dtype: npt.DTypeLike = np.float32) -> np.ndarray:
        """Counts each entry in each image of int [M, N]: [M, K] of `dtype`, 0 or 1 for sets."""
        counts = np.zeros((len(codes), self.codebook_size), dtype)
        np.add.at(counts, (np.arange(len(codes))[:, None], codes), counts.dtype.type(1))
        return counts

    def occurrences(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lists which image of int [M, N] holds which entry: images and entries, int [E] each.

        An entry that an image repeats is listed once. This takes less memory than `multi_hot`.
        """
        ordered = np.sort(codes, axis=1).astype(np.int32)
        first = np.diff(ordered, axis=1, prepend=np.int32(-1)) > 0
        return np.repeat(np.arange(len(codes)), first.sum(1)), ordered[first]

    def rank(self, codes: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Numbers the codes of each image, integers [M, N], in lexicographic order.

        A number takes ceil(log2 C(K, N)) bits: 100 for 16 codes of 512, where a sequence of codes
        takes 144. Returns uint8 [M, `bytes_per_image`], the most significant byte first, so that
        ranks, as bytes, have the order of the codes. Raises ValueError as `check` does.
        """
        codes, size = self.check(codes), self.bytes_per_image
        ranks = np.empty((len(codes), size), np.uint8)
        for rows in self._parts(len(codes)):
            numbers = self._numbers(codes[rows])
            content = b"".join(number.to_bytes(size, "big") for number in numbers)
            ranks[rows] = np.frombuffer(content, np.uint8).reshape(len(numbers), size)
        return ranks

    def unrank(self, ranks: npt.ArrayLike, first: int = 0) -> npt.NDArray[np.int32]:
        """Returns the codes of ranks, int32 [M, N] in canonical order: the inverse of `rank`.

        Raises InputError if a rank is too large, as in a damaged file, and ValueError if the shape
        or the dtype of `ranks` is wrong. Errors number the images from `first` on.

        >>> CodeSpace(num_codes=3, codebook_size=10).unrank(np.array([[119]], np.uint8)).tolist()
        [[7, 8, 9]]
        """
        ranks, size, count = np.asarray(ranks), self.bytes_per_image, self.num_messages
        if ranks.dtype != np.uint8 or ranks.ndim != 2 or ranks.shape[1] != size:
            raise ValueError(f"ranks are {ranks.dtype} {ranks.shape}: give uint8 [M, {size}]")
        codes = np.empty((len(ranks), self.num_codes), np.int32)
        for rows in self._parts(len(ranks)):
            numbers = [int.from_bytes(row.tobytes(), "big") for row in ranks[rows]]
            if max(numbers) >= count:
                image = first + rows.start + next(i for i, n in enumerate(numbers) if n >= count)
                raise InputError(
                    f"image {image} has a rank beyond the last of {self.num_codes} codes of"
                    f" {self.codebook_size} entries: the data is damaged, or of another model"
                )
            codes[rows] = self._codes(numbers)
        return codes

    def _parts(self, count: int) -> Iterator[slice]:
        """Yields the rows of images whose ranks are numbers in memory at once."""
        largest = max(self.bytes_per_image, self.num_codes)
        step = max(min(_AT_ONCE, _MAX_CODES // largest), 1)
        for start in range(0, count, step):
            yield slice(start, start + step)

    @property
    def _digits(self) -> int:
        """The entries that each place of a sequence can have; 0: codes are no sequence."""
        if self.own_entries:  # sorted, these codes are one
            return self.codebook_size // self.num_codes
        return self.codebook_size if self.ordered else 0

    @property
    def _first(self) -> np.ndarray:
        """The first entry of each latent."""
        return np.arange(self.num_codes) * self._digits

    # The k-th code of a sorted multiset plus k is the k-th code of a set of K + N - 1 entries, and
    # the order stays.

    @property
    def _entries_of_sets(self) -> int:
        return self.codebook_size + (0 if self.distinct else self.num_codes - 1)

    @property
    def _shift(self) -> np.ndarray:
        return np.arange(self.num_codes) * (not self.distinct)

    def _numbers(self, codes: np.ndarray) -> list[int]:
        if self._digits:
            places = np.sort(codes, axis=1) - self._first if self.own_entries else codes
            return enumeration.numbers_of_sequences(places, self._digits)
        sets = np.sort(codes, axis=1).astype(np.int64) + self._shift
        return enumeration.numbers_of_sets(sets, self._entries_of_sets)

    def _codes(self, numbers: list[int]) -> np.ndarray:
        if self._digits:
            places = enumeration.sequences_of_numbers(numbers, self.num_codes, self._digits)
            return places + self._first if self.own_entries else places
        positions = enumeration.sets_of_numbers(numbers, self.num_codes, self._entries_of_sets)
        return positions - self._shift
