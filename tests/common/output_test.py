"""Output that is lost ends no command; numbers have three digits."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pivq_jax.common.output import as_text

COMMAND = r"""
import sys
from pathlib import Path
from pivq_jax.common.command_line import exit_code

def work() -> int:
    for step in range(10_000):
        print("step", step, flush=step % 2 == 0)
    print("runs/\u9854 \u2026", "\udcff")
    Path(sys.argv[1]).write_text("checkpoint")
    return 0

sys.exit(exit_code(work))
"""


def run(written: Path, stdout: Any, **options: Any) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", COMMAND, str(written)]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, **options)


@contextlib.contextmanager
def lost(where: str) -> Iterator[int]:
    """A descriptor that cannot be written: a full disk, or a pipe as to `head`, which has ended."""
    if where == "full":
        place = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, place = os.pipe()
        os.close(reader)
    yield place
    os.close(place)


@pytest.mark.parametrize("where, reason", [("pipe", "Broken pipe"), ("full", "No space left on")])
def test_a_command_goes_on_where_its_output_is_lost(tmp_path, where, reason):
    with lost(where) as place:
        done = run(tmp_path / "written", place)
    assert done.returncode == 0 and (tmp_path / "written").exists(), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"output is lost from here on ({reason}")


def test_output_and_errors_may_both_be_lost(tmp_path):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", COMMAND, str(tmp_path / "written")]
        assert subprocess.run(command, stdout=full, stderr=full).returncode == 0
    assert (tmp_path / "written").exists()


def test_output_and_errors_may_be_closed_from_the_start(tmp_path):
    command = [sys.executable, "-c", COMMAND, str(tmp_path / "written")]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command])
    assert done.returncode == 0 and (tmp_path / "written").exists()


def test_characters_that_a_terminal_does_not_know_are_escaped(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = run(tmp_path / "written", subprocess.PIPE, env=environment)
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.splitlines()[-1] == r"runs/\u9854 \u2026 \udcff"


@pytest.mark.parametrize(
    "command, where, code, lines",
    [("pivq_jax.main", "pipe", 141, 0), ("pivq_jax.data.prepare", "full", 1, 1)],
)
def test_help_that_no_one_reads_ends_in_silence(command, where, code, lines):
    """`python -m pivq_jax.main --help | head -1`"""
    arguments = [sys.executable, "-m", command, "--help"]
    with lost(where) as place:
        done = subprocess.run(arguments, stdout=place, stderr=subprocess.PIPE, text=True)
    assert done.returncode == code and len(done.stderr.splitlines()) == lines


@pytest.mark.parametrize(
    "value, text",
    [
        *((0.0, "0"), (12.3456, "12.3"), (-0.00123456, "-0.00123"), (946.4, "946")),
        *((999.4, "999"), (999.6, "1,000"), (5961.44, "5,961"), (-1234.5678, "-1,235")),
        *((16, "16"), (2_908_524, "2,908,524"), ("0.12.0", "0.12.0"), (float("nan"), "nan")),
    ],
)
def test_numbers_have_three_digits_and_are_whole_from_a_thousand_on(value, text):
    assert as_text(value) == text
