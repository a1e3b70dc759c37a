"""What may pass is tried again, what will not is passed on at once."""

import errno

import pytest

from pivq_jax.common import retry
from pivq_jax.common.retry import may_pass, retried


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


def test_reads_are_repeated_with_growing_delays_then_given_up(monkeypatch, capsys):
    slept: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", slept.append)
    answers = iter([TimeoutError("slow"), ConnectionError("reset"), "content"])

    def read() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert retried(read, "gs://b/x") == "content" and slept == [1, 2]
    assert "gs://b/x cannot be read now (slow); trying again in 1 s" in capsys.readouterr().err
    slept.clear()
    answers = iter([TimeoutError("slow")] * 9)
    with pytest.raises(OSError, match=r"gs://b/x cannot be read after 5 attempts \(slow\)"):
        retried(read, "gs://b/x")
    assert slept == [1, 2, 4, 8]
    answers = iter([TimeoutError("slow"), ""])
    assert retried(read, "gs://b/x", "written") == ""
    assert "gs://b/x cannot be written now (slow)" in capsys.readouterr().err
    answers = iter([KeyError("a")])
    with pytest.raises(KeyError):
        retried(read, "gs://b/x")
