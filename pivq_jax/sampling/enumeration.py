"""Numbers of sets and sequences in lexicographic order, and back: enumerative coding.

See Cover 1973, "Enumerative source encoding". For a set of N of K entries with codes c_1 < ... <
c_N, the number of sets after it is the sum over i of C(K - 1 - c_i, N + 1 - i): of those with the
same first i - 1 codes and a larger i-th one. From one binomial to the next it is a product and a
quotient.
"""

import math
from collections.abc import Sequence


def number_of_set(codes: Sequence[int], size: int) -> int:
    """Numbers a set, sorted, of entries below `size`, from 0 on."""
    m, value = size - 1, math.comb(size - 1, len(codes))
    number = math.comb(size, len(codes)) - 1
    for j, code in zip(range(len(codes), 0, -1), codes, strict=True):
        while m > size - 1 - code:  # `value` is C(m, j)
            value, m = value * (m - j) // m, m - 1
        number -= value
        if j > 1:
            value, m = value * j // m, m - 1
    return number


def set_of_number(number: int, num_codes: int, size: int) -> list[int]:
    """The inverse of `number_of_set`."""
    codes, m, value = [], size - 1, math.comb(size - 1, num_codes)
    after = math.comb(size, num_codes) - 1 - number
    for j in range(num_codes, 0, -1):
        while value > after:
            value, m = value * (m - j) // m, m - 1
        codes.append(size - 1 - m)
        after -= value
        if j > 1:
            value, m = value * j // m, m - 1
    return codes


def number_of_sequence(codes: Sequence[int], size: int) -> int:
    """Numbers a sequence of entries below `size`, from 0 on: its digits in base `size`."""
    number = 0
    for code in codes:
        number = size * number + code
    return number


def sequence_of_number(number: int, num_codes: int, size: int) -> list[int]:
    """The inverse of `number_of_sequence`."""
    codes = []
    for _ in range(num_codes):
        number, code = divmod(number, size)
        codes.append(code)
    return codes[::-1]
