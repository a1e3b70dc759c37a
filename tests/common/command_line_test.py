"""What ends a command, in one line."""

import errno
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pivq_jax.common.command_line import exit_code
from pivq_jax.common.lock import lock_directory
from pivq_jax.data import align, prepare


def of_numpy() -> int:
    np.zeros((10**9, 64, 64, 3))
    return 0


def of_python() -> int:
    raise MemoryError


def of_a_device() -> int:
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12288 bytes.\nmore")


@pytest.mark.parametrize(
    "command, word",
    [(of_numpy, "89.4 TiB"), (of_python, "MemoryError"), (of_a_device, "12288 bytes")],
)
def test_too_little_memory_is_one_line(command, word, capsys):
    assert exit_code(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: there is too little memory (")
    assert word in line and "raise train.accumulation" in line


def test_ctrl_c_is_one_line(capsys):
    def stop() -> int:
        raise KeyboardInterrupt

    assert exit_code(stop, "; the same command continues") == 130
    assert capsys.readouterr().err == "\ninterrupted; the same command continues\n"


def test_a_refusal_of_the_storage_is_one_line(capsys):
    class HttpError(Exception):
        """An error of a storage client."""

    def read() -> int:
        raise HttpError("Invalid Credentials, 401")

    HttpError.__module__ = "gcsfs.retry"
    assert exit_code(read) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the storage refused" in line and "401" in line and "login" in line


def test_a_path_that_cannot_be_used_is_invalid_input(tmp_path, capsys):
    loop, long = tmp_path / "loop", tmp_path / ("x" * 300)
    loop.symlink_to(loop)
    file = tmp_path / "file"
    file.touch()
    tries: list[tuple[Callable[[], Any], str]] = [
        (lambda: loop.resolve(strict=True), "link"),
        (lambda: loop.read_text(), "link"),
        (lambda: long.exists() or long.read_text(), "give a shorter name"),
        (lambda: lock_directory(long).__enter__(), "give a shorter name"),
        (lambda: (file / "x").read_text(), "part of this path is a file"),
        (lambda: tmp_path.read_text(), "is a folder"),
    ]
    for code in (errno.EACCES, errno.EPERM, errno.EROFS):

        def refused(code: int = code) -> None:
            raise OSError(code, os.strerror(code), str(file))

        tries.append((refused, str(file)))
    for attempt, word in tries:
        assert exit_code(lambda attempt=attempt: attempt() and 0) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert word in line and str(tmp_path) in line and len(line) < 350, line


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.ENOENT])
def test_what_happens_to_files_is_a_failure(code, capsys):
    def fail() -> int:
        raise OSError(code, os.strerror(code), "file")

    assert exit_code(fail) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_another_failure_keeps_its_traceback():
    def fail() -> int:
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="ours"):
        exit_code(fail)


@pytest.mark.parametrize(
    ("command", "arguments", "word"),
    [
        (align, [], "--source"),
        (align, ["--source=x", "--output=y", "--size=big"], "big"),
        (align, ["--source=x", "--output=y", "--size=64", "--preset=head"], "head"),
        (prepare, ["--dataset=mnist", "--source=x", "--size=8"], "mnist"),
        (prepare, ["--dataset=ffhq", "--source=x", "--size=8", "--speed=9"], "--speed"),
    ],
)
def test_mistakes_in_flags_are_one_line(capsys, command, arguments, word):
    with pytest.raises(SystemExit) as exit_request:
        command.main(arguments)
    out, err = capsys.readouterr()
    assert exit_request.value.code == 2 and not out
    assert err.startswith("error: ") and err.count("\n") == 1 and word in err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (align, ["pip install dlib-bin", "skipped.tsv", "continues", "celeba", "ffhq"]),
        (prepare, ["list_eval_partition.txt", "thumbnails128x128", "--crop", "--config.data.path"]),
    ],
)
def test_help_teaches(capsys, command, words):
    with pytest.raises(SystemExit) as exit_request:
        command.main(["--help"])
    out = capsys.readouterr().out
    assert exit_request.value.code == 0
    assert all(word in out for word in words)
