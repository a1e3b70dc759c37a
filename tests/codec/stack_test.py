"""The stack of symbols."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pivq_jax.codec.stack import PRECISION, Stack
from pivq_jax.common.errors import InputError

END = 1 << PRECISION
bounds = st.lists(st.integers(1, END - 1), min_size=1, max_size=6, unique=True)
# A distribution as the ends of its intervals, and which of them.
symbols = st.tuples(bounds.map(lambda b: [0, *sorted(b), END]), st.integers(0, 6)).map(
    lambda each: (each[0], each[1] % (len(each[0]) - 1))
)
contents = st.binary(max_size=40).filter(lambda content: content[:1] != b"\0")


def interval(symbol: tuple[list[int], int]) -> tuple[int, int]:
    ends, index = symbol
    return ends[index], ends[index + 1] - ends[index]


def pop(stack: Stack, ends: list[int]) -> tuple[list[int], int]:
    """Pops a symbol from a distribution."""
    index = next(i for i, end in enumerate(ends[1:]) if stack.peek() < end)
    stack.pop(*interval((ends, index)))
    return ends, index


def copy(stack: Stack) -> Stack:
    return Stack.from_bytes(stack.to_bytes())


@given(contents, st.lists(symbols, max_size=30))
def test_what_is_pushed_last_is_popped_first(content, pushed):
    stack = Stack.from_bytes(content)
    for symbol in pushed:
        stack = copy(stack)
        stack.push(*interval(symbol))
    for ends, index in reversed(pushed):
        stack = copy(stack)
        assert pop(stack, ends) == (ends, index)
    assert stack.to_bytes() == content and stack.is_empty() == (content == b"")


@given(contents, st.lists(symbols, max_size=30))
def test_pushing_what_was_popped_restores_every_stack(content, distributions):
    """Also one that has nothing left to pop."""
    stack, popped = Stack.from_bytes(content), []
    for ends, _ in distributions:
        stack = copy(stack)
        popped.append(pop(stack, ends))
    for symbol in reversed(popped):
        stack = copy(stack)
        stack.push(*interval(symbol))
    assert stack.to_bytes() == content


@given(st.lists(symbols, min_size=1, max_size=100))
def test_symbols_take_as_many_bits_as_they_are_worth(pushed):
    stack = Stack()
    for symbol in pushed:
        stack.push(*interval(symbol))
    worth = sum(PRECISION - math.log2(interval(symbol)[1]) for symbol in pushed)
    # The first symbol may take 24 bits, and the last byte be incomplete.
    assert 8 * len(stack.to_bytes()) < worth * (1 + 1e-4) + PRECISION + 9


def test_what_no_stack_is_written_as_is_refused():
    with pytest.raises(InputError, match="damaged: it begins with a zero"):
        Stack.from_bytes(b"\0abcdefghij")
