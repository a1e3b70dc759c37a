"""What ends a command, in one line."""

import numpy as np
import pytest

from pivq_jax.common.command_line import exit_code


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
    assert word in line and "lower train.batch_size" in line


def test_another_failure_keeps_its_traceback():
    def fail() -> int:
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="ours"):
        exit_code(fail)
