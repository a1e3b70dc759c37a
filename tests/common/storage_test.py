"""Which errors are those of the storage, and may pass."""

import errno

import pytest

from pivq_jax.common.storage import may_pass


def led_to(cause: Exception) -> Exception:
    error = Exception("Encountered error while reading")
    error.__cause__ = cause
    return error


class HttpError(Exception):
    """An error of a storage client."""


class DecodeError(Exception):
    """An error of a record that is read."""


class UnavailableError(Exception):
    """An error of TensorFlow, through which etils reads where it is installed."""


class NotFoundError(Exception):
    """Another one."""


HttpError.__module__ = "gcsfs.retry"
UnavailableError.__module__ = NotFoundError.__module__ = "tensorflow.python.framework.errors_impl"
DecodeError.__module__ = "google.protobuf.message"


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError("slow"),
        ConnectionResetError(),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ESTALE, "Stale file handle"),
        ValueError("UNAVAILABLE: Error opening"),
        led_to(ValueError("DEADLINE_EXCEEDED: Error reading")),
        ExceptionGroup("several", [KeyError("a"), TimeoutError()]),
        HttpError("503"),
        UnavailableError("try again"),
    ],
)
def test_the_storage_is_the_reason(error):
    assert may_pass(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "no such file"),
        PermissionError(errno.EACCES, "denied"),
        ValueError("DATA_LOSS: checksum"),
        led_to(ValueError("OUT_OF_RANGE: Error reading")),
        KeyError("params"),
        RuntimeError("UNAVAILABLE: the device"),
        DecodeError("a damaged record"),
        led_to(NotFoundError("no such object")),
    ],
)
def test_the_storage_is_not_the_reason(error):
    assert not may_pass(error)
