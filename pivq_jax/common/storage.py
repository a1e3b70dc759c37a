"""Errors of storage: what says that a file is damaged, and what may pass, such as a timeout.

Nothing is repeated here: gcsfs, s3fs and TensorStore repeat their own requests.
"""

import errno
import re
from collections.abc import Iterator

# Of errors of the operating system, beside timeouts and those of connections.
_PASSING = {
    *("EIO", "EINTR", "EAGAIN", "EBUSY", "ESTALE", "ENOBUFS", "ENFILE", "EMFILE", "ENOTCONN"),
    *("ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH", "EREMOTEIO"),
}
_PASSING_STATUS = {
    *("CANCELLED", "UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL"),
    *("RESOURCE_EXHAUSTED", "ABORTED", "UNAVAILABLE"),
}
# Packages through which remote storage is read; their errors have no common base. etils prefers
# TensorFlow where it is installed.
_CLIENTS = {
    *("aiohttp", "aiobotocore", "botocore", "gcsfs", "google"),
    *("httpx", "requests", "tensorflow", "urllib3"),
}


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
    match = re.match(r"([A-Z_]{7,}): ", str(error)) if isinstance(error, ValueError) else None
    return match[1] if match else ""


def of_client(error: BaseException) -> bool:
    """Whether what reads remote storage raised this error itself."""
    module = type(error).__module__
    return module.partition(".")[0] in _CLIENTS and "protobuf" not in module


def may_pass(error: BaseException) -> bool:
    """Whether the same may succeed later: the storage caused this error or one that led to it."""
    return any(
        isinstance(each, TimeoutError | ConnectionError)
        or (isinstance(each, OSError) and errno.errorcode.get(each.errno or 0) in _PASSING)
        or tensorstore_status(each) in _PASSING_STATUS
        or (of_client(each) and type(each).__name__ != "NotFoundError")  # TensorFlow's
        for each in causes(error)
    )
