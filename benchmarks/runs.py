"""Runs the training program for a benchmark and returns its metrics."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(config: str, changes: dict[str, Any], workdir: Path, core: int) -> dict[str, Any]:
    """Trains and evaluates a model with `pivq_jax.main`, unless that is already done.

    Returns its `metrics.json`. There are no evaluations during training, as runs are compared at
    equal seconds. The run uses one `core`; its output is appended to `output.txt` in `workdir`.
    Raises SystemExit if it fails.
    """
    command = [sys.executable, "-m", "pivq_jax.main", f"--config={config}", f"--workdir={workdir}"]
    fields = {"evaluate.every": 0} | changes
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / "output.txt").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    # Before it has threads, which inherit this. `preexec_fn` would fork a process with threads.
    os.sched_setaffinity(process.pid, {core})
    if process.wait():
        raise SystemExit(f"{' '.join(command)}\nfailed: see {workdir}/output.txt")
    return json.loads((workdir / "metrics.json").read_text())
