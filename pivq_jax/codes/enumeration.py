"""Numbers of sets and sequences in lexicographic order, and back: enumerative coding.

See Cover 1973, "Enumerative source encoding". For a set of N of K entries with codes c_1 < ... <
c_N, the number of sets after it is the sum over k of C(K - 1 - c_k, N + 1 - k): of those with the
same first k - 1 codes and a larger k-th one.
"""

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

_MAX_COLUMN = 2**24  # bytes of a column of binomials; without one, sets are numbered one by one


def numbers_of_sets(sets: np.ndarray, size: int) -> list[int]:
    """Numbers sets, int64 [M, N] sorted, of `size` entries from 0 on."""
    num_codes = sets.shape[1]
    last = math.comb(size, num_codes) - 1
    behind = size - 1 - sets
    if not _has_columns(size, num_codes):
        return [last - _number_after(row, size) for row in behind.tolist()]
    numbers = [last] * len(sets)
    behind -= np.arange(num_codes)[::-1]  # see `_binomials`
    for column, rows in zip(_binomials(size, num_codes), behind.T.tolist(), strict=True):
        numbers = [n - column[row] for n, row in zip(numbers, rows, strict=True)]
    return numbers


def sets_of_numbers(numbers: Sequence[int], num_codes: int, size: int) -> np.ndarray:
    """The inverse of `numbers_of_sets`, int64 [M, N]."""
    last = math.comb(size, num_codes) - 1
    after = [last - n for n in numbers]
    if not _has_columns(size, num_codes):
        return size - 1 - np.array([_behind(n, num_codes, size) for n in after])
    behind = np.empty((num_codes, len(numbers)), np.int64)
    for place, column in enumerate(_binomials(size, num_codes)):
        rows = [bisect_right(column, n) - 1 for n in after]
        after = [n - column[row] for n, row in zip(after, rows, strict=True)]
        behind[place] = rows
    behind += np.arange(num_codes)[::-1, None]  # see `_binomials`
    return size - 1 - behind.T


def numbers_of_sequences(sequences: np.ndarray, size: int) -> list[int]:
    """Numbers sequences, int [M, N], of `size` entries from 0 on: their digits in base `size`."""
    numbers = [0] * len(sequences)
    for place in sequences.T.tolist():
        numbers = [size * n + code for n, code in zip(numbers, place, strict=True)]
    return numbers


def sequences_of_numbers(numbers: Sequence[int], num_codes: int, size: int) -> np.ndarray:
    """The inverse of `numbers_of_sequences`, int64 [M, N]."""
    places = np.empty((num_codes, len(numbers)), np.int64)
    for place in range(num_codes)[::-1]:
        places[place] = [n % size for n in numbers]
        numbers = [n // size for n in numbers]
    return places.T


def _has_columns(size: int, num_codes: int) -> bool:
    """Whether a column of binomials fits into memory."""
    bits = math.comb(size, num_codes).bit_length()
    return (size - num_codes) * (bits // 8 + 32) <= _MAX_COLUMN


def _binomials(size: int, num_codes: int) -> Iterator[list[int]]:
    """Yields C(m, j) for all m from j - 1 to size - 1 - (N - j), for j = N, N - 1, ..., 1."""
    column = [math.comb(m, num_codes) for m in range(num_codes - 1, size)]
    yield column
    for _ in range(1, num_codes):
        column = [0, *(above - value for value, above in itertools.pairwise(column))]
        yield column


# Without columns: from one binomial to the next by a product and a quotient.


def _number_after(behind: list[int], size: int) -> int:
    """The sum of C(b, j) over N falling numbers b below `size`, with j = N, N - 1, ..., 1."""
    number, m, value = 0, size - 1, math.comb(size - 1, len(behind))
    for j, b in zip(range(len(behind), 0, -1), behind, strict=True):
        while m > b:
            value, m = value * (m - j) // m, m - 1
        number += value
        if j > 1:
            value, m = value * j // m, m - 1
    return number


def _behind(number: int, num_codes: int, size: int) -> list[int]:
    """The inverse of `_number_after`."""
    codes, m, value = [], size - 1, math.comb(size - 1, num_codes)
    for j in range(num_codes, 0, -1):
        while value > number:
            value, m = value * (m - j) // m, m - 1
        codes.append(m)
        number -= value
        if j > 1:
            value, m = value * j // m, m - 1
    return codes
