"""Shorter codes for sets: an arithmetic code that knows how frequent each entry is.

A set S of N entries has the probability prod_{k in S} w_k / e_N(w), where e_N is the elementary
symmetric polynomial of the weights (conditional Bernoulli: Chen, Dempster and Liu 1994). The code
tells for each entry in turn whether the set holds it, by integers, so that every machine decodes
alike. Code words are those of Shannon, Fano and Elias: none is the beginning of another one, so
they are stored without their lengths. docs/codec_format.md describes every step.
"""

import math
from array import array
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pivq_jax.common.errors import InputError

# Probabilities are multiples of 2**-24.
_PRECISION = 24
_CERTAIN = 1 << _PRECISION
# Fractional bits of the ratios of polynomials.
_FRACTION = 32
# An interval has a width of at least 2**44 and at most 2**60.
_WIDEST, _NARROWEST, _DIGIT = 60, 44, 16

Table = list[array]


def entry_levels(codes: npt.ArrayLike, codebook_size: int) -> bytes:
    """Returns the levels, K bytes, of the entries in sets of codes [M, N].

    There are two levels per factor of two in the odds of an entry, counted from 1 for the rarest
    one; the level is 0 if no image contains it. The rounding costs 0.1 bits an image at N = 16.
    """
    codes = np.asarray(codes)
    found = np.bincount(codes.reshape(-1), minlength=codebook_size)
    octaves = np.log2((found + 0.5) / (len(codes) - found + 0.5))
    levels = 1 + np.rint(2 * (octaves - octaves[found > 0].min()))
    return np.where(found > 0, levels, 0).astype(np.uint8).tobytes()


def weights_of(levels: bytes) -> list[int]:
    """Returns the weights of entries in the distribution of sets, see `inclusion_table`."""
    return [math.isqrt(1 << (level + 15)) if level else 0 for level in levels]


def inclusion_table(weights: Sequence[int], num_codes: int) -> Table:
    """Computes the probability that an entry is in the set, given the number of codes from it on.

    Item j of an entry's row of N + 1 is that for j codes left, in units of 2**-24; it is 0 or 2**24
    only if that is certain.
    """
    if (positive := sum(weight > 0 for weight in weights)) < num_codes:
        raise InputError(f"{positive} entries have a weight: sets of {num_codes} codes need more")
    table: Table = []
    # Item j of `ratios` is e_j / e_{j-1} of the entries after the current one; it is 0 if fewer
    # than j of them have a positive weight. `left` is the number of those from the current one on.
    ratios, left = [0] * (num_codes + 1), 0
    for weight in reversed(weights):
        row = array("I", bytes(4 * (num_codes + 1)))
        table.append(row)
        if not weight:
            continue
        scaled = weight << _FRACTION
        left += 1
        # e_j(k) / e_{j-1}(k) = (r_j + w) r_{j-1} / (r_{j-1} + w), r being the ratios after entry k.
        ratio, before = 1, 1
        for j in range(1, min(num_codes, left) + 1):
            total = ratios[j] + scaled
            row[j] = min(max((scaled << _PRECISION) // total, 1), _CERTAIN - 1)
            if j == left:
                row[j] = _CERTAIN
            ratio, ratios[j] = ratios[j], max(total * ratio // before, 1)
            before = total
    table.reverse()
    return table


def encode_sets(codes: np.ndarray, table: Table) -> bytes:
    """Encodes sets, int [M, N], sorted within each image; `decode_sets` is the inverse.

    The code words follow each other, the most significant bit of a byte first, filled up with zeros
    to a whole byte.
    """
    content, pending, held = bytearray(), 0, 0  # `held` bits are not yet in `content`
    for row in codes.tolist():
        word, length = encode_set(row, table)
        pending, held = pending << length | word, held + length
        content += (pending >> held % 8).to_bytes(held // 8, "big")
        held %= 8
        pending &= (1 << held) - 1
    return bytes(content) + (pending << -held % 8).to_bytes(-(-held // 8), "big")


def encode_set(codes: Sequence[int], table: Table) -> tuple[int, int]:
    """Returns the code word of a sorted set as a number, and its length in bits."""
    low, width, bits, left = 0, 1 << _WIDEST, _WIDEST, len(codes)
    for entry, row in enumerate(table):
        chance = row[left]
        if entry == codes[-left]:
            if not chance:
                raise ValueError(f"code {entry} has weight 0")
            if chance != _CERTAIN:
                width = (width >> _PRECISION) * chance
            left -= 1
            if not left:
                break
        elif chance:
            part = (width >> _PRECISION) * chance
            low += part
            width -= part
        while width < 1 << _NARROWEST:
            low, width, bits = low << _DIGIT, width << _DIGIT, bits + _DIGIT
    return _code_word(low, width, bits)


def decode_sets(content: bytes, count: int, num_codes: int, table: Table) -> Iterator[list[int]]:
    """Yields the codes of `count` sets, sorted, from what `encode_sets` returned."""
    position = 0

    def bits_at(start: int, length: int) -> int:
        first, last = start // 8, -(-(start + length) // 8)
        window = int.from_bytes(content[first:last].ljust(last - first, b"\0"), "big")
        return (window >> (8 * last - start - length)) & ((1 << length) - 1)

    for _ in range(count):
        width, bits, left = 1 << _WIDEST, _WIDEST, num_codes
        offset = bits_at(position, bits)  # of the content within the interval
        codes = []
        for entry, row in enumerate(table):
            chance = row[left]
            if not chance:
                continue
            part = width if chance == _CERTAIN else (width >> _PRECISION) * chance
            if offset < part:
                width = part
                codes.append(entry)
                left -= 1
                if not left:
                    break
            else:
                offset -= part
                width -= part
            while width < 1 << _NARROWEST:
                offset = offset << _DIGIT | bits_at(position + bits, _DIGIT)
                width, bits = width << _DIGIT, bits + _DIGIT
        read = bits_at(position, bits)
        word, length = _code_word(read - offset, width, bits)
        position += length
        if word != read >> (bits - length) or position > 8 * len(content):
            raise InputError("the data is damaged: it is not what the codes are written as")
        yield codes
    if -(-position // 8) != len(content) or bits_at(position, 8 * len(content) - position):
        raise InputError("the data is damaged: there is more of it than the codes take")


def _code_word(low: int, width: int, bits: int) -> tuple[int, int]:
    """The shortest string of bits that begins only numbers in [low, low + width) of 2**bits."""
    free = width.bit_length() - 1
    while True:
        word = -(-low >> free)
        if (word + 1) << free <= low + width:
            return word, bits - free
        free -= 1
