"""SIGKILL at random moments of a training, and the same command again: the same bits.

Moments while checkpoints are written are in tests/training/resume_test.py, those of a preparation
in tests/data/prepare_test.py.
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import checkpoint_steps, ended
from tests.training.loop_test import TIMINGS
from tests.training.resume_test import assert_same_end

pytestmark = pytest.mark.slow


def kill(command: Any, ready: Callable[[], bool], delay: float) -> bool:
    """SIGKILL some time after a moment; False if the command ended before."""
    deadline = time.monotonic() + 1_800
    while not ready() and not ended(command.pid):
        assert time.monotonic() < deadline, "the moment to kill never came"
        time.sleep(0.005)
    if not ended(command.pid):
        time.sleep(delay)
    os.kill(command.pid, signal.SIGKILL)
    done = command.wait()
    assert "Traceback" not in done.stderr, done.stderr
    assert done.code in (0, -signal.SIGKILL), done
    return done.code != 0


def last_logged(log: Path) -> int:
    """The step of the last whole line; -1 if there is none."""
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return json.loads(lines[-1])["step"] if lines else -1


def test_training_killed_at_its_start_its_codebook_and_its_evaluation_ends_as_unbroken(
    commands, tiny_run, tmp_path, pytestconfig
):
    kills = pytestconfig.getoption("kills") or 1
    workdir, rng = tmp_path / "run", random.Random(39)
    arguments = [*tiny_run.arguments[:-1], f"--workdir={workdir}"]
    log = workdir / "log.jsonl"
    for stage, most in (("start", 2.0), ("codebook", 0.5), ("evaluation", 3.0)):
        killed = 0
        while killed < kills:
            before = log.stat().st_mtime_ns if log.exists() else 0

            def ready(stage: str = stage, before: int = before) -> bool:
                if stage == "start":
                    return workdir.exists()
                if stage == "evaluation":
                    return 160 in checkpoint_steps(workdir)
                changed = log.exists() and log.stat().st_mtime_ns > before
                return changed and last_logged(log) >= 55

            killed += kill(commands.start(*arguments), ready, rng.uniform(0, most))
    done = commands.run(*arguments)
    assert done.code == 0 and "Traceback" not in done.stderr, done
    assert_same_end(workdir, tiny_run.workdir, 160)
    found = json.loads((workdir / "metrics.json").read_text())
    assert found.keys() == tiny_run.metrics.keys()
    for name in found.keys() - TIMINGS:
        assert found[name] == tiny_run.metrics[name], name
    for picture in ("samples.png", "interpolations.png"):
        assert (workdir / picture).read_bytes() == (tiny_run.workdir / picture).read_bytes()
