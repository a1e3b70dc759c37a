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


def numbers_of_sets(sets: np.ndarray, size: int) -> list[int]:
    """Numbers sets, int64 [M, N] sorted, of `size` entries from 0 on."""
    num_codes = sets.shape[1]
    after = [0] * len(sets)
    behind = (size - 1 - sets).T.tolist()
    for column, rows in zip(_binomials(size - 1, num_codes), behind, strict=True):
        after = [n + column[row] for n, row in zip(after, rows, strict=True)]
    last = math.comb(size, num_codes) - 1
    return [last - n for n in after]


def sets_of_numbers(numbers: Sequence[int], num_codes: int, size: int) -> np.ndarray:
    """The inverse of `numbers_of_sets`, int64 [M, N]."""
    places = np.empty((num_codes, len(numbers)), np.int64)
    last = math.comb(size, num_codes) - 1
    after = [last - n for n in numbers]
    for place, column in enumerate(_binomials(size - 1, num_codes)):
        rows = [bisect_right(column, n) - 1 for n in after]
        after = [n - column[row] for n, row in zip(after, rows, strict=True)]
        places[place] = rows
    return size - 1 - places.T


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


def _binomials(last: int, num_codes: int) -> Iterator[list[int]]:
    """Yields C(m, j) for all m from 0 to last - (N - j), for j = N, N - 1, ..., 1."""
    column = [math.comb(m, num_codes) for m in range(last + 1)]
    yield column
    for _ in range(1, num_codes):
        column = [above - value for value, above in itertools.pairwise(column)]
        yield column
