"""Metadata of config fields: descriptions, choices and limits of numbers."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple


class Limit(NamedTuple):
    """A range of values."""

    symbol: str  # text for tables
    text: str  # text for error messages, after the field and its value
    holds: Callable[[float], bool]  # whether a value is in the range


# Channel groups in the norms of the discriminator.
NORM_GROUPS = 8
# Patches along a side of an image, for the loss on recombined sets: a patch is small enough that
# some real image of the batch has one like it, and large enough to show what belongs together
# (docs/results.md).
RECOMBINATION_PATCHES = 4
# Counts fit into 32 bits, signed.
MOST = 2**31 - 1


def at_least(least: int, reason: str = "", *, most: int = MOST) -> Limit:
    """Returns the limit of whole numbers from `least` to `most`; gives a reason unless obvious.

    Where a config comes with a file from elsewhere, `most` bounds the time and memory that opening
    the file takes; no useful model is near it.
    """
    text = f"must be at least {least} and at most {most:,}" + (f": {reason}" if reason else "")
    symbol = f"≥ {least}" if most == MOST else f"{least} to {most:,}"
    return Limit(symbol, text, lambda value: least <= value <= most)


NOT_NEGATIVE = Limit("≥ 0", "must be finite and not negative", lambda value: 0 <= value < math.inf)
POSITIVE = Limit("> 0", "must be finite and positive", lambda value: 0 < value < math.inf)
FRACTION = Limit("0 to 1", "must be in [0, 1]", lambda value: 0 <= value <= 1)
BELOW_ONE = Limit("0 to below 1", "must be in [0, 1)", lambda value: 0 <= value < 1)
INT64 = Limit(
    "64 bits, signed", "must be a signed integer of 64 bits", lambda x: -(2**63) <= x < 2**63
)


def setting(
    default: Any,
    description: str,
    limit: Limit | None = None,
    *,
    choices: tuple[str, ...] = (),
    several: bool = False,
    before: Any = None,
) -> Any:
    """Defines a field of a section, with a default that suits a laptop's CPU.

    With `several`, the value is a list of `choices`, separated by commas and possibly empty. A
    field added later has in `before` the value that earlier runs were trained with.
    """
    metadata = {
        "description": description,
        "limit": limit,
        "choices": choices,
        "several": several,
        "before": before,
    }
    return dataclasses.field(default=default, metadata=metadata)
