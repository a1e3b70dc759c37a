"""A command that starts again, once, with settings of malloc."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys
print(os.getpid(), flush=True)
{before}
from pivq_jax.common.memory import restart_with_kept_memory
restart_with_kept_memory()
print(os.environ.get("GLIBC_TUNABLES", ""), sys.argv[1:])
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux")


def run(directory: Path, before: str = "", tunables: str = "") -> tuple[list[str], str]:
    """The process ids that were printed, and the last line."""
    script = directory / "a script.py"
    script.write_text(SCRIPT.format(before=before))
    environment = {**os.environ, "GLIBC_TUNABLES": tunables}
    command = [sys.executable, str(script), "--config=a b", "--x"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *pids, last = done.stdout.splitlines()
    return pids, last


def test_starts_again_once_with_the_same_arguments(tmp_path):
    (first, second), last = run(tmp_path, tunables="glibc.rtld.nns=4")
    assert first == second  # the same process
    assert last.startswith("glibc.rtld.nns=4:glibc.malloc.hugetlb=1:")
    assert last.endswith("['--config=a b', '--x']")


@pytest.mark.parametrize(
    "before, tunables",
    [
        ("", "glibc.malloc.hugetlb=0"),  # wanted so
        ("sys.settrace(lambda *_: None)", ""),  # a debugger
        ("sys.argv = ['', '--config=c']", ""),  # a program that calls the command
    ],
)
def test_does_nothing_where_it_must_not(before, tunables, tmp_path):
    pids, last = run(tmp_path, before, tunables)
    assert len(pids) == 1 and last.startswith(f"{tunables} [")
