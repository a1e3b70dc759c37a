"""A command that starts again, once, with settings of malloc."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, sys
print(os.getpid(), flush=True)
{before}
from pivq_jax.common.memory import restart_with_kept_memory
restart_with_kept_memory()
print(os.environ.get("GLIBC_TUNABLES", ""), "PIVQ_JAX_RESTARTED" in os.environ, sys.argv[1:])
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux")


def run(
    script: Path, before: str = "", tunables: str = "", under: tuple = (), more: tuple = ()
) -> tuple[list[str], str]:
    """The process ids that were printed, and the last line."""
    script.write_text(SCRIPT.format(before=before))
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "GLIBC_TUNABLES": tunables}
    command = [sys.executable, *under, str(script), "--config=a b", "--x", *more]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    *pids, last = done.stdout.splitlines()
    return pids, last


def test_starts_again_once_with_the_same_arguments(tmp_path):
    (first, second), last = run(tmp_path / "pivq_jax", tunables="glibc.rtld.nns=4")
    assert first == second  # the same process
    assert last.startswith("glibc.rtld.nns=4:glibc.malloc.hugetlb=1:")
    assert last.endswith(" False ['--config=a b', '--x']")


@pytest.mark.parametrize(
    "name, before, tunables",
    [
        ("pivq_jax", "", "glibc.malloc.hugetlb=0"),  # wanted so
        ("pivq_jax", "sys.settrace(lambda *_: None)", ""),  # a debugger
        ("pivq_jax", "sys.argv = ['pivq_jax', '--config=c']", ""),
        ("mine.py", "", ""),  # a program that calls the command
        ("pivq_jax", "sys.executable = '/nowhere'", ""),
    ],
)
def test_does_nothing_where_it_must_not(name, before, tunables, tmp_path):
    pids, last = run(tmp_path / name, before, tunables)
    assert len(pids) == 1 and last.startswith(f"{tunables} False [")


@pytest.mark.parametrize("profiled", [True, False])  # otherwise flags may be read from a pipe
def test_does_nothing_under_a_profiler_or_with_a_file_of_flags(tmp_path, profiled):
    profiler = tmp_path / "profiler.py"
    profiler.write_text(
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], None, '__main__')"
    )
    how: dict = {"under": (str(profiler),)} if profiled else {"more": ("--flagfile=/dev/stdin",)}
    pids, last = run(tmp_path / "pivq_jax", **how)
    assert len(pids) == 1 and last.startswith(" False [")


def test_starts_only_once_where_the_settings_are_taken_away(tmp_path):
    pids, last = run(tmp_path / "pivq_jax", "os.environ.pop('GLIBC_TUNABLES', '')")
    assert len(pids) == 2 and last.startswith(" False [")
