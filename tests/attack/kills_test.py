"""SIGKILL at 20 random moments, and the same command again: the same bits, nothing half-written.

With `--kills=20` there are as many at each stage.

The moments while checkpoints are written are in tests/training/resume_test.py, 20 of their own, and
those of a preparation in tests/data/prepare_test.py.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import pivq_jax
from tests.conftest import checkpoint_steps, ended
from tests.training.loop_test import TIMINGS
from tests.training.resume_test import assert_same_end

pytestmark = pytest.mark.slow

CONVERT = """
import runpy, sys
sys.argv = ["convert", *{arguments!r}]
runpy.run_module("pivq_jax.convert", run_name="__main__", alter_sys=True)
"""


def kill(command: Any, ready: Callable[[], bool], delay: float) -> bool:
    """SIGKILL some time after a moment; False if the command ended before."""
    deadline = time.monotonic() + 1_800
    while not ready():
        assert time.monotonic() < deadline, "the moment to kill never came"
        if ended(command.pid):
            break
        time.sleep(0.005)
    else:
        time.sleep(delay)
    os.kill(command.pid, signal.SIGKILL)
    done = command.wait()
    assert "Traceback" not in done.stderr, done.stderr
    assert done.code in (0, -signal.SIGKILL), done
    return done.code != 0


def run(commands: Any, *arguments: str, **options: Any) -> float:
    """Runs a command to its end; the seconds that it took."""
    started = time.monotonic()
    done = commands.run(*arguments, **options)
    assert done.code == 0 and "Traceback" not in done.stderr, done
    return time.monotonic() - started


def last_logged(log: Path) -> int:
    """The step of the last whole line; -1 if there is none."""
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return json.loads(lines[-1])["step"] if lines else -1


def files_in(folder: Path) -> dict[str, str]:
    """A hash of each file below a folder, or of the file itself; empty if there is none."""
    paths = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def test_training_killed_at_its_start_its_codebook_and_its_evaluation(
    commands, tiny_run, tmp_path, pytestconfig
):
    """Nine kills: three in each of these."""
    kills = pytestconfig.getoption("kills") or 3
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
    run(commands, *arguments)
    assert_same_end(workdir, tiny_run.workdir, 160)
    found, expected = (
        json.loads((path / "metrics.json").read_text()) for path in (workdir, tiny_run.workdir)
    )
    assert found.keys() == expected.keys()
    for name in expected.keys() - TIMINGS:
        assert found[name] == expected[name], name
    for picture in ("samples.png", "interpolations.png"):
        assert (workdir / picture).read_bytes() == (tiny_run.workdir / picture).read_bytes()


def test_a_prior_killed_three_times(commands, tiny_run, tmp_path, pytestconfig):
    kills = pytestconfig.getoption("kills") or 3
    sizes = {"steps": 60, "width": 16, "depth": 1, "heads": 2, "batch_size": 8}
    fields = [f"--config.prior.{name}={value}" for name, value in sizes.items()]
    whole, workdir = (shutil.copytree(tiny_run.workdir, tmp_path / name) for name in ("a", "b"))
    arguments = [*tiny_run.arguments[:-1], *fields, "train"]
    seconds = run(commands, *arguments, f"--workdir={whole}", module="prior")

    def names() -> set[str]:
        return {n for _, folders, files in os.walk(workdir) for n in (*folders, *files)}

    rng, made, killed = random.Random(40), names(), 0
    while killed < kills:
        command = commands.start(*arguments, f"--workdir={workdir}", module="prior")
        if kill(command, lambda: names() != made, rng.uniform(0, seconds / 2)):
            killed += 1
        else:  # it came to its end: from the start again, and sooner
            seconds /= 2
            shutil.rmtree(workdir)
            shutil.copytree(tiny_run.workdir, workdir)
    run(commands, *arguments, f"--workdir={workdir}", module="prior")
    found, expected = pivq_jax.load(workdir).prior, pivq_jax.load(whole).prior
    assert found.bits == expected.bits and found.finished and expected.finished
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


@pytest.mark.parametrize("what, kills", [("compress", 2), ("decompress", 3), ("convert", 3)])
def test_what_is_written_is_whole_or_not_there(
    commands, tiny_run, small_folder, tmp_path, what, kills, pytestconfig
):
    """Eight kills: at random moments of the time that the whole command takes."""
    kills = pytestconfig.getoption("kills") or kills
    file, rng = tmp_path / "faces.pivq", random.Random(what)
    target = tmp_path / "out"
    target.mkdir()
    workdir = f"--workdir={tiny_run.workdir}"
    compress = ["compress", workdir, f"--input={small_folder}"]
    if what == "decompress":
        run(commands, *compress, f"--output={file}", module="codec")

    def made(name: str) -> dict[str, Any]:
        output = target / name
        if what == "compress":
            return {"arguments": [*compress, f"--output={output}"], "module": "codec"}
        if what == "decompress":
            given = ["decompress", workdir, f"--input={file}", f"--output={output}"]
            return {"arguments": given, "module": "codec"}
        given = [f"--from={tiny_run.workdir}", f"--to={output}.safetensors"]
        return {"arguments": [], "code": CONVERT.format(arguments=given)}

    def start(name: str) -> Any:
        given = made(name)
        return commands.start(*given.pop("arguments"), **given)

    suffix = ".safetensors" if what == "convert" else ""
    given = made("whole")
    run(commands, *given.pop("arguments"), **given)  # what it compiles is kept
    shutil.move(target / f"whole{suffix}", tmp_path / "kept")
    given = made("whole")
    seconds = run(commands, *given.pop("arguments"), **given)
    whole = files_in(target / f"whole{suffix}")
    assert whole and whole == files_in(tmp_path / "kept")
    killed = 0
    while killed < kills:
        killed += kill(start("again"), lambda: True, rng.uniform(0.2, 0.95) * seconds)
        again = files_in(target / f"again{suffix}")
        assert again in ({}, whole)
        if again:  # it came to its end: the kills go on
            shutil.move(target / f"again{suffix}", tmp_path / f"ended_{time.monotonic_ns()}")
    for path in target.glob(".*.tmp"):  # of kills within a write: deleted when they are an hour old
        os.utime(path, (0, 0))
    given = made("again")
    run(commands, *given.pop("arguments"), **given)
    assert files_in(target / f"again{suffix}") == whole
    assert sorted(os.listdir(target)) == [f"again{suffix}", f"whole{suffix}"]  # nothing else
