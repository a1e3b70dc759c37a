"""Runs the training program for a benchmark and returns its metrics."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(
    config: str, changes: dict[str, str], workdir: Path, core: int | None = None
) -> dict[str, Any]:
    """Trains and evaluates a model with `pivq_jax.main`, unless that is already done.

    Without evaluations during training, as runs are compared at equal seconds.

    Args:
        config: config file, with variants after a colon if any.
        changes: values of changed config fields.
        workdir: directory of the run; output is appended to `output.txt` there.
        core: the only core that the run may use; all cores by default.

    Returns:
        The contents of `metrics.json`.

    Raises:
        SystemExit: if the run fails.
    """
    fields = [
        f"--config.{name}={value}" for name, value in ({"evaluate.every": "0"} | changes).items()
    ]
    command = [
        *(sys.executable, "-m", "pivq_jax.main", f"--config={config}"),
        *(f"--workdir={workdir}", *fields),
    ]
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / "output.txt").open("a") as log:
        done = subprocess.run(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nfailed: see {workdir}/output.txt")
    return json.loads((workdir / "metrics.json").read_text())
