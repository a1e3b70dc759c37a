"""The Slurm script with stubs of srun and scontrol: what it starts, and when it is requeued."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "launch" / "slurm.sbatch"


def run(tmp_path: Path, code: int, *arguments: str) -> tuple[int, list[str]]:
    """Exit code of the script, and the commands it called."""
    for name, exit_code in {"srun": code, "scontrol": 0}.items():
        stub = tmp_path / name
        stub.write_text(f'#!/bin/bash\necho {name} "$@" >> "{tmp_path}/calls"\nexit {exit_code}\n')
        stub.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    job = {"SLURM_JOB_ID": "17", "SLURM_CPUS_PER_TASK": "12"}
    environment = {**os.environ, "PATH": path, **job}
    done = subprocess.run(["bash", SCRIPT, *arguments], env=environment, capture_output=True)
    calls = tmp_path / "calls"
    return done.returncode, calls.read_text().splitlines() if calls.exists() else []


@pytest.mark.parametrize("code, requeued", [(0, False), (1, False), (2, False), (143, True)])
def test_only_a_stopped_run_is_requeued(tmp_path, code, requeued):
    ended, calls = run(tmp_path, code, "--config=configs/ffhq.py", "--workdir=/shared/a b")
    assert ended == code
    started = "srun --kill-on-bad-exit=0 --cpus-per-task=12 python -m pivq_jax.main"
    given = "--distributed=auto --config=configs/ffhq.py --workdir=/shared/a b"
    assert calls[0] == f"{started} {given}"
    assert calls[1:] == ["scontrol requeue 17"] * requeued


def test_nothing_is_started_without_arguments(tmp_path):
    assert run(tmp_path, 0) == (2, [])


def test_the_job_asks_for_a_process_a_gpu_and_a_warning_before_its_end():
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", SCRIPT.read_text(), re.M))
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    # To the processes (no B:), early enough for a checkpoint; logs of all lives in one file.
    assert re.fullmatch(r"TERM@\d{3}", options["signal"])
    assert "requeue" in options and options["open-mode"] == "append"
    assert options["mem"] == "0"  # all that the nodes have
