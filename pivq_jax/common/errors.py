"""The exception for invalid user input."""

import difflib
from collections.abc import Iterable, Sequence

__all__ = ["InputError"]


class InputError(ValueError):
    """Invalid user input: flags, config or files.

    The message is a single line that states the value, the limit and the remedy. Characters that a
    terminal would not print, as names of files may contain, are shown as escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    r"""Returns text in which line breaks, control and other unprintable characters are escaped.

    >>> printable("a\x1b[2J.png")
    'a\\x1b[2J.png'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def listed(faults: Sequence[str], between: str = "; ") -> str:
    """Returns up to five faults of a file from elsewhere, shortened, and the number of the others.

    >>> listed(["a is missing", "b is missing"])
    'a is missing; b is missing'
    >>> listed([f"{name} is missing" for name in "abcdefg"])[-38:]
    'd is missing; e is missing; and 2 more'
    """
    shown = [each if len(each) <= 200 else f"{each[:197]}..." for each in faults[:5]]
    if len(faults) > 5:
        shown.append(f"and {len(faults) - 5:,} more")
    return between.join(shown)


def meant(name: str, known: Iterable[str]) -> str:
    """Returns a question for the name that is most like a wrong one, or nothing.

    >>> meant("sampel", ["train", "sample"])
    ': did you mean sample?'
    >>> meant("xyz", ["train", "sample"])
    ''
    """
    close = difflib.get_close_matches(name, [*known], n=1)
    return f": did you mean {close[0]}?" if close else ""


def brief(error: BaseException) -> str:
    """Returns the message of a library's error, or else its type, in at most 200 characters."""
    try:
        text = " ".join(str(error).split())
    except RecursionError:  # it quotes a deeply nested value
        text = ""
    return (text if len(text) <= 200 else f"{text[:197]}...") or type(error).__name__
