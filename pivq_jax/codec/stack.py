"""A stack of symbols in few bits: asymmetric numeral systems (Duda 2013, arXiv 1311.2540).

A symbol of probability p adds -log2 p bits, and popping one takes as many away. Any stack can be
popped, whatever was pushed, and pushing what was popped restores it.

The stack is a number below 2**64 and words of 32 bits. If there are words, the number is at least
2**32. Otherwise it may be as small as 0: an empty stack takes no bytes, and popping needs none.
"""

from __future__ import annotations

from array import array

import numpy as np

from pivq_jax.common.errors import InputError

# Symbols are intervals of [0, 2**24).
PRECISION = 24

_PEEKED = (1 << PRECISION) - 1
_WORD_BITS, _WORD_BYTES = 32, 4
_WORD = (1 << _WORD_BITS) - 1


class Stack:
    """A stack that starts empty."""

    def __init__(self) -> None:
        self._number = 0
        self._words = array("I")

    @classmethod
    def from_bytes(cls, content: bytes) -> Stack:
        """Reads what `to_bytes` returns; refuses what it never does."""
        if content[:1] == b"\0":
            raise InputError("the data is damaged: it begins with a zero")
        stack = cls()
        # The number takes 5 to 8 bytes if words follow.
        count = max(0, len(content) - 5) // _WORD_BYTES
        split = len(content) - _WORD_BYTES * count
        stack._number = int.from_bytes(content[:split], "big")
        words = np.frombuffer(content[split:], ">u4")
        stack._words.frombytes(words[::-1].astype(np.uint32).tobytes())
        return stack

    def to_bytes(self) -> bytes:
        """Returns the number without leading zeros and the words, the last one first."""
        number = self._number.to_bytes(-(-self._number.bit_length() // 8), "big")
        return number + np.array(self._words[::-1], ">u4").tobytes()

    def is_empty(self) -> bool:
        """Whether the stack is as it started."""
        return not self._number and not self._words

    def push(self, start: int, length: int) -> None:
        """Pushes the symbol with the interval [start, start + length), length at least 1."""
        if self._number >= length << (2 * _WORD_BITS - PRECISION):
            self._words.append(self._number & _WORD)
            self._number >>= _WORD_BITS
        whole, rest = divmod(self._number, length)
        self._number = (whole << PRECISION) + start + rest

    def peek(self) -> int:
        """Returns a number in [0, 2**24); the last symbol is the one in whose interval it lies."""
        return self._number & _PEEKED

    def pop(self, start: int, length: int) -> None:
        """Pops the symbol with the interval [start, start + length), in which `peek()` lies."""
        self._number = length * (self._number >> PRECISION) + self.peek() - start
        if self._number <= _WORD and self._words:
            self._number = self._number << _WORD_BITS | self._words.pop()
