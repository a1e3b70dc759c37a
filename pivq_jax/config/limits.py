"""What is said of a field besides its type and its default: `setting`, and limits of numbers."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple


class Limit(NamedTuple):
    """A range of values."""

    symbol: str  # for tables
    text: str  # for errors, after the field and its value
    holds: Callable[[float], bool]


def at_least(least: int, reason: str = "") -> Limit:
    """Numbers from `least` upwards; the reason is told where it is no matter of course."""
    text = f"must be at least {least}" + (f": {reason}" if reason else "")
    return Limit(f"≥ {least}", text, lambda value: value >= least)


NOT_NEGATIVE = Limit("≥ 0", "must not be negative", lambda value: value >= 0)
POSITIVE = Limit("> 0", "must be positive", lambda value: value > 0)
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
    """A field of a section.

    Args:
        default: for a laptop's CPU.
        description: one line.
        limit: the range of its values.
        choices: its values.
        several: whether the value may be several of the choices, with commas, or none.
        before: for a field that was added after runs had been trained, the value that they were
            trained with.
    """
    metadata = {
        "description": description,
        "limit": limit,
        "choices": choices,
        "several": several,
        "before": before,
    }
    return dataclasses.field(default=default, metadata=metadata)
