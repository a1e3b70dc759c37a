"""Sets of codes in about as many bits as a prior over sets expects; see docs/codec.md.

As a sequence, N codes take log2 N! bits more than as a set. So that these bits are not lost, the
order is drawn from bits that are already written, which can be told from the order again (bits
back): the writer pops from its stack which of the remaining codes comes last, takes it away, and
pushes it with the probability it has given the others. The reader takes the same steps backwards.

The sets of a group are coded step by step together, so that a pass of the network serves all.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from pivq_jax.codec.exact_prior import ExactPrior, Integers
from pivq_jax.codec.stack import PRECISION, Stack
from pivq_jax.common.errors import InputError

LARGEST_GROUP = 64  # part of the format, as all that the order of symbols depends on


def encode_sets(
    codes: npt.ArrayLike, prior: ExactPrior, advance: Callable[[int], object] = lambda size: None
) -> bytes:
    """Encodes sets [M, N] as a stack, the first image on top; `decode_sets` is the inverse.

    `advance` is called with the number of images of each group that is done.
    """
    codes = np.sort(np.asarray(codes, np.int64), axis=1)
    stack = Stack()
    end = len(codes)
    for size in group_sizes(end):
        _push_sets(stack, codes[end - size : end], prior)
        end -= size
        advance(size)
    return stack.to_bytes()


def decode_sets(content: bytes, count: int, prior: ExactPrior) -> Iterator[list[int]]:
    """Yields the codes of `count` sets, sorted, from what `encode_sets` returned."""
    stack = Stack.from_bytes(content)
    for size in reversed(group_sizes(count)):
        yield from _pop_sets(stack, size, prior).tolist()
    if not stack.is_empty():
        raise InputError("the data is damaged: it is not what the codes are written as")


def group_sizes(count: int) -> list[int]:
    """Returns the sizes of groups in the order they are written: as many as before, at most 64.

    Larger ones would pop more than the stack has: at first, a group pops more than it pushes.

    >>> group_sizes(20), group_sizes(200)
    ([1, 1, 2, 4, 8, 4], [1, 1, 2, 4, 8, 16, 32, 64, 64, 8])
    """
    sizes: list[int] = []
    before = 0
    while before < count:
        sizes.append(min(max(before, 1), LARGEST_GROUP, count - before))
        before += sizes[-1]
    return sizes


def _push_sets(stack: Stack, codes: Integers, prior: ExactPrior) -> None:
    """Pushes sets, int64 [B, N], sorted."""
    rows = np.arange(len(codes))
    for count in range(codes.shape[1], 0, -1):
        places = np.empty(len(codes), np.int64)
        for row in rows:
            # The place whose interval this is in; see `_interval`.
            place = ((stack.peek() + 1) * count - 1) >> PRECISION
            stack.pop(*_interval(place, count))
            places[row] = place
        taken = codes[rows, places]
        codes = codes[np.arange(count) != places[:, None]].reshape(len(codes), count - 1)
        lengths = prior.frequencies(codes)
        ends = lengths.cumsum(1)[rows, taken].tolist()
        for end, length in zip(ends, lengths[rows, taken].tolist(), strict=True):
            stack.push(end - length, length)


def _pop_sets(stack: Stack, count: int, prior: ExactPrior) -> Integers:
    """The inverse of `_push_sets`: returns int64 [B, N], sorted."""
    codes = np.empty((count, 0), np.int64)
    for known in range(prior.num_codes):
        lengths = prior.frequencies(codes)
        ends = lengths.cumsum(1)
        new = np.empty(count, np.int64)
        for row in reversed(range(count)):
            code = int(np.searchsorted(ends[row], stack.peek(), "right"))
            length = int(lengths[row, code])
            stack.pop(int(ends[row, code]) - length, length)
            new[row] = code
        places = (codes < new[:, None]).sum(1)
        codes = np.sort(np.concatenate([codes, new[:, None]], axis=1), axis=1)
        for place in reversed(places.tolist()):
            stack.push(*_interval(place, known + 1))
    return codes


def _interval(place: int, count: int) -> tuple[int, int]:
    """Start and length of the interval of one of `count` places, which are equally likely."""
    start, end = ((i << PRECISION) // count for i in (place, place + 1))
    return start, end - start
