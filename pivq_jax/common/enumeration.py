"""Codes of fixed length: the rank of an image's codes among all that it could have.

This is enumerative coding (Cover 1973, "Enumerative source encoding"). All sets of N of K entries
are numbered from 0 in lexicographic order of their sorted codes. The number takes
ceil(log2 C(K, N)) bits: 100 for N = 16 and K = 512, where a sequence of codes takes 144. As bytes,
the most significant first, the numbers have the order of the sets.
"""

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pivq_jax.common.errors import InputError

# Images whose numbers are in memory at once; a column of binomials serves all of them. Bytes of the
# largest column, without which one image is numbered after another; codes, or bytes of numbers, of
# images at once.
_AT_ONCE = 4_096
_MAX_COLUMN = 2**24
_MAX_CODES = 2**22


def bytes_per_image(num_codes: int, codebook_size: int, kind: str = "matching") -> int:
    """Returns the number of bytes of a rank.

    Args:
        num_codes: N, at least 1.
        codebook_size: K, at least 1; for `matching` at least N.
        kind: `matching` (sets), `nearest` (multisets) or `positional` (sequences).

    Returns:
        ceil(b / 8) with b = ceil(log2 C(K, N)) for sets, ceil(log2 C(K + N - 1, N)) for multisets
        and ceil(N log2 K) for sequences.

    Raises:
        ValueError: if the kind is unknown or a size is out of range.
    """
    return -(-(_count(num_codes, codebook_size, kind) - 1).bit_length() // 8)


def rank(codes: npt.ArrayLike, codebook_size: int, kind: str = "matching") -> npt.NDArray[np.uint8]:
    """Numbers the codes of each image; `unrank` is the inverse.

    Args:
        codes: integers [M, N], the codes of M images, values in [0, codebook_size). Their order
            within an image matters for `positional` only.
        codebook_size: K, the number of codebook entries.
        kind: `matching` (the codes of an image are distinct), `nearest` or `positional`.

    Returns:
        uint8 [M, `bytes_per_image`], the ranks, most significant byte first.

    Raises:
        ValueError: if the kind is unknown, the shape is not [M, N], codes are out of range, or
            codes repeat within an image for `matching`.
        TypeError: if codes are not integers.

    >>> rank([[0, 1, 2], [0, 1, 3], [7, 8, 9]], codebook_size=10).tolist()
    [[0], [1], [119]]
    """
    codes = np.asarray(codes)
    check_codes(codes, codebook_size, kind)
    size = bytes_per_image(codes.shape[1], codebook_size, kind)
    ranks = np.empty((len(codes), size), np.uint8)
    step = _at_once(size)
    for start in range(0, len(codes), step):
        rows = ranks[start : start + step]
        numbers = _numbers(codes[start : start + step], codebook_size, kind)
        content = b"".join(number.to_bytes(size, "big") for number in numbers)
        rows[:] = np.frombuffer(content, np.uint8).reshape(rows.shape)
    return ranks


def unrank(
    ranks: npt.ArrayLike, num_codes: int, codebook_size: int, kind: str = "matching"
) -> npt.NDArray[np.int32]:
    """Returns the codes with the given numbers; the inverse of `rank`.

    Args:
        ranks: uint8 [M, `bytes_per_image`].
        num_codes: N.
        codebook_size: K.
        kind: `matching`, `nearest` or `positional`.

    Returns:
        int32 [M, N], sorted within each image unless `positional`.

    Raises:
        InputError: if a rank is too large, as in a damaged file.
        ValueError: if the shape or the dtype of `ranks` is wrong, or as in `bytes_per_image`.

    >>> unrank(np.array([[119]], np.uint8), num_codes=3, codebook_size=10).tolist()
    [[7, 8, 9]]
    """
    ranks = np.asarray(ranks)
    count = _count(num_codes, codebook_size, kind)
    size = bytes_per_image(num_codes, codebook_size, kind)
    if ranks.dtype != np.uint8 or ranks.ndim != 2 or ranks.shape[1] != size:
        raise ValueError(f"ranks are {ranks.dtype} {ranks.shape}: give uint8 [M, {size}]")
    codes = np.empty((len(ranks), num_codes), np.int32)
    step = _at_once(max(size, num_codes))
    for start in range(0, len(ranks), step):
        numbers = [int.from_bytes(row.tobytes(), "big") for row in ranks[start : start + step]]
        if max(numbers) >= count:
            image = start + next(i for i, number in enumerate(numbers) if number >= count)
            raise InputError(
                f"image {image} has a rank beyond the last of {num_codes} codes of"
                f" {codebook_size} entries: the data is damaged, or of another model"
            )
        codes[start : start + step] = _codes(numbers, num_codes, codebook_size, kind)
    return codes


def check_codes(codes: np.ndarray, codebook_size: int, kind: str) -> None:
    """Checks codes of images, [M, N]; raises ValueError or TypeError as `rank` does."""
    if codes.ndim != 2:
        raise ValueError(f"codes have shape {codes.shape}: give [M, N]")
    if not np.issubdtype(codes.dtype, np.integer):
        raise TypeError(f"codes have dtype {codes.dtype}: give integers")
    _count(codes.shape[1], codebook_size, kind)
    if not codes.size:
        return
    lowest, highest = int(codes.min()), int(codes.max())
    if lowest < 0 or highest >= codebook_size:
        raise ValueError(f"codes range from {lowest} to {highest}: give [0, {codebook_size})")
    if kind == "matching":
        repeats = (np.diff(np.sort(codes, axis=1), axis=1) == 0).any(axis=1)
        if repeats.any():
            raise ValueError(
                f"image {int(np.argmax(repeats))} repeats a code, but the codes of a set are"
                " distinct: use kind='nearest' for multisets"
            )


def _count(num_codes: int, codebook_size: int, kind: str) -> int:
    """The number of sets, multisets or sequences."""
    if num_codes < 1 or codebook_size < 1:
        raise ValueError(
            f"num_codes = {num_codes} and codebook_size = {codebook_size}: both must be at least 1"
        )
    if kind == "positional":
        return codebook_size**num_codes
    if kind == "nearest":
        return math.comb(codebook_size + num_codes - 1, num_codes)
    if kind != "matching":
        raise ValueError(f"kind = {kind!r} is unknown: use matching, nearest or positional")
    if num_codes > codebook_size:
        raise ValueError(
            f"{num_codes} distinct codes cannot come from {codebook_size} entries: "
            "matching needs codebook_size >= num_codes"
        )
    return math.comb(codebook_size, num_codes)


# The k-th code of a sorted multiset plus k is the k-th code of a set of K + N - 1 entries, and the
# order stays. For a set with codes c_1 < ... < c_N, the number of sets after it is the sum over k
# of C(K - 1 - c_k, N + 1 - k): of those with the same first k - 1 codes and a larger k-th one.


def _at_once(size: int) -> int:
    """Images whose numbers, or as many codes, are in memory at once."""
    return max(min(_AT_ONCE, _MAX_CODES // max(size, 1)), 1)


def _has_table(last: int, num_codes: int) -> bool:
    """Whether columns of binomials fit into memory."""
    bits = math.comb(last + 1, num_codes).bit_length()
    return (last + 1 - num_codes) * (bits // 8 + 32) <= _MAX_COLUMN


def _numbers(codes: np.ndarray, codebook_size: int, kind: str) -> list[int]:
    if kind == "positional":
        numbers = [0] * len(codes)
        for place in codes.T.tolist():
            numbers = [codebook_size * n + code for n, code in zip(numbers, place, strict=True)]
        return numbers
    num_codes = codes.shape[1]
    last, shift = _last_entry(num_codes, codebook_size, kind)
    behind = last - (np.sort(codes, axis=1).astype(np.int64) + shift)
    after = [0] * len(codes)
    if not _has_table(last, num_codes):
        after = [_number_after(row, last) for row in behind.tolist()]
    else:
        for column, rows in zip(_binomials(last, num_codes), behind.T.tolist(), strict=True):
            after = [n + column[row] for n, row in zip(after, rows, strict=True)]
    highest = _count(num_codes, codebook_size, kind) - 1
    return [highest - n for n in after]


def _codes(numbers: list[int], num_codes: int, codebook_size: int, kind: str) -> np.ndarray:
    codes = np.empty((num_codes, len(numbers)), np.int64)
    if kind == "positional":
        for place in range(num_codes)[::-1]:
            codes[place] = [n % codebook_size for n in numbers]
            numbers = [n // codebook_size for n in numbers]
        return codes.T
    last, shift = _last_entry(num_codes, codebook_size, kind)
    highest = _count(num_codes, codebook_size, kind) - 1
    after = [highest - n for n in numbers]
    if not _has_table(last, num_codes):
        return last - np.array([_behind(n, num_codes, last) for n in after]) - shift
    for place, column in enumerate(_binomials(last, num_codes)):
        rows = [bisect_right(column, n) - 1 for n in after]
        after = [n - column[row] for n, row in zip(after, rows, strict=True)]
        codes[place] = rows
    return last - codes.T - shift


def _last_entry(num_codes: int, codebook_size: int, kind: str) -> tuple[int, np.ndarray]:
    """The last entry of sets, or of the sets that stand for multisets, and what these add."""
    if kind == "matching":
        return codebook_size - 1, np.zeros(num_codes, np.int64)
    return codebook_size + num_codes - 2, np.arange(num_codes)


def _binomials(last: int, num_codes: int) -> Iterator[list[int]]:
    """Yields C(m, j) for all m from 0 to last - (N - j), for j = N, N - 1, ..., 1."""
    column = [math.comb(m, num_codes) for m in range(last + 1)]
    yield column
    for _ in range(1, num_codes):
        column = [above - value for value, above in itertools.pairwise(column)]
        yield column


# Without columns: from one binomial to the next by a product and a quotient.


def _number_after(behind: list[int], last: int) -> int:
    """The sum of C(b, j) over N falling numbers b of up to `last`, with j = N, N - 1, ..., 1."""
    number, m, value = 0, last, math.comb(last, len(behind))
    for j, b in zip(range(len(behind), 0, -1), behind, strict=True):
        while m > b:
            value, m = value * (m - j) // m, m - 1
        number += value
        if j > 1:
            value, m = value * j // m, m - 1
    return number


def _behind(number: int, num_codes: int, last: int) -> list[int]:
    """The inverse of `_number_after`."""
    found, m, value = [], last, math.comb(last, num_codes)
    for j in range(num_codes, 0, -1):
        while value > number:
            value, m = value * (m - j) // m, m - 1
        found.append(m)
        number -= value
        if j > 1:
            value, m = value * j // m, m - 1
    return found
