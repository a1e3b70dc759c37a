"""Reads that fail for a reason that may pass, such as a timeout, are repeated."""

import errno
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from pivq_jax.common.errors import brief

T = TypeVar("T")

DELAYS = (1.0, 2.0, 4.0, 8.0)  # seconds between the attempts

_PASSING = {
    getattr(errno, name)
    for name in (
        *("EIO", "EINTR", "EAGAIN", "EBUSY", "ETIMEDOUT", "ESTALE", "ENOBUFS", "ENFILE", "EMFILE"),
        *("ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "EPIPE", "ENOTCONN", "ESHUTDOWN"),
        *("ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH", "EREMOTEIO"),
    )
    if hasattr(errno, name)
}
_STATUS = re.compile(
    "(CANCELLED|UNKNOWN|INVALID_ARGUMENT|DEADLINE_EXCEEDED|NOT_FOUND|ALREADY_EXISTS|INTERNAL"
    "|PERMISSION_DENIED|RESOURCE_EXHAUSTED|FAILED_PRECONDITION|ABORTED|OUT_OF_RANGE|UNIMPLEMENTED"
    "|UNAVAILABLE|DATA_LOSS|UNAUTHENTICATED): "
)
_PASSING_STATUS = {
    *("CANCELLED", "UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL"),
    *("RESOURCE_EXHAUSTED", "ABORTED", "UNAVAILABLE"),
}
# Packages through which remote storage is read; their errors have no common base.
_CLIENTS = {"aiohttp", "aiobotocore", "botocore", "gcsfs", "google", "httpx", "requests", "urllib3"}


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and all errors that led to it."""
    pending, seen = [error], set()
    while pending:
        error = pending.pop()
        if id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        pending.extend(e for e in (error.__cause__, error.__context__) if e is not None)


def tensorstore_status(error: BaseException) -> str:
    """Returns the status with which TensorStore begins its errors, such as UNAVAILABLE, or ''."""
    found = _STATUS.match(str(error)) if isinstance(error, ValueError) else None
    return found[1] if found else ""


def may_pass(error: BaseException) -> bool:
    """Whether the same read may succeed later: the storage, not the data, is the reason.

    Errors that led to this one count as well.
    """
    for each in causes(error):
        if isinstance(each, TimeoutError | ConnectionError):
            return True
        if isinstance(each, OSError) and each.errno in _PASSING:
            return True
        if tensorstore_status(each) in _PASSING_STATUS:
            return True
        if type(each).__module__.partition(".")[0] in _CLIENTS:
            return True
    return False


def retried(read: Callable[[], T], what: str) -> T:
    """Calls a function again, after 1, 2, 4 and 8 seconds, if it fails for what may pass."""
    for delay in DELAYS:
        try:
            return read()
        except Exception as error:
            if not may_pass(error):
                raise
            say_again(what, error, delay)
        time.sleep(delay)
    try:
        return read()
    except Exception as error:
        if not may_pass(error):
            raise
        raise OSError(
            f"{what} cannot be read after {len(DELAYS) + 1} attempts ({brief(error)}): the"
            " same command tries again"
        ) from error


def say_again(what: str, error: BaseException | str, delay: float) -> None:
    """Reports on stderr that a read is repeated after a delay in seconds."""
    reason = error if isinstance(error, str) else brief(error)
    line = f"{what} cannot be read now ({reason}); trying again in {delay:g} s"
    print(line, file=sys.stderr, flush=True)
