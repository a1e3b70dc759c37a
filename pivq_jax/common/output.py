"""Progress bars; numbers as text; standard output that may be lost, as where a disk is full."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TextIO


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> Any:
    """A bar of tqdm with its options; in a file, not a terminal, a line every ten seconds."""
    from tqdm import tqdm  # opening a model does without

    return tqdm(items, mininterval=0.1 if sys.stderr.isatty() else 10.0, **options)


def as_text(value: object) -> str:
    """Returns a value as text: a float with three digits, or whole from 1,000 on as any integer."""
    if isinstance(value, float) and abs(value) < 999.5:
        return f"{value:.3g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else f"{value}"


def print_and_exit(text: str) -> NoReturn:
    """Prints all that was asked for and exits with status 0; in silence where a pipe is closed."""
    try:
        print(text, flush=True)
    except OSError as error:
        _redirect_to_devnull(sys.stdout)
        if isinstance(error, BrokenPipeError):
            sys.exit(141)  # as of a program that SIGPIPE ends
        print(f"error: cannot write to standard output ({error.strerror})", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def _redirect_to_devnull(stream: TextIO) -> None:
    """Redirects a stream to /dev/null, so that Python does not write to it again at the end."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def ignore_output_errors() -> None:
    """Lets the process go on where output cannot be written, and escapes unknown characters.

    Streams of a notebook, which are not those of the process, are left alone.
    """
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:  # closed before the start
            setattr(sys, name, open(os.devnull, "w", errors="replace"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__"):
            with contextlib.suppress(OSError):  # it may be closed already
                stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, _LossyStream(stream))


class _LossyStream:
    """A text stream that is redirected to /dev/null once it cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, operation: Callable[..., object], *arguments: str) -> None:
        try:
            operation(*arguments)
        except OSError as error:
            _redirect_to_devnull(self._stream)
            if self is sys.stdout:
                print(f"output is lost from here on ({error.strerror})", file=sys.stderr)
