"""Runs of the whole program that a benchmark asks for, and the figures they end with."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(
    config: str, changes: dict[str, str], workdir: Path, core: int | None = None
) -> dict[str, Any]:
    """Train and evaluate a model by `pivq_jax.main`, as far as that is not done; its metrics.

    Args:
        config: file, with variants after a colon if any.
        changes: fields of the config and their values.
        workdir: of the run; what it prints is added to `output.txt` there.
        core: the only one that the run may use; all of them by default.
    """
    fields = [f"--config.{name}={value}" for name, value in changes.items()]
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
