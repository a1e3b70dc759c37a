"""Faults and evaluations: whatever happens to a run, it ends bit for bit as if nothing had."""

import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import pivq_jax
from pivq_jax.common.errors import InputError
from pivq_jax.common.lock import DirectoryLock
from pivq_jax.common.stopping import Interrupted
from pivq_jax.training.logs import TrainingLog
from pivq_jax.training.loop import train
from tests.conftest import Command, checkpoint_steps, ended, interrupt_at, read_lines, start_pair
from tests.training.loop_test import assert_same_state, restore_all
from tests.training.start_test import SHORT

# Main with a limit on the size of files: writing a checkpoint fails midway, as on a full disk. The
# limit is stderr's too, so Orbax's long complaints are left out.
ON_A_FULL_DISK = """
import os, resource, runpy, sys

class Errors:
    def __init__(self):
        self.file = os.fdopen(os.dup(2), "w", buffering=1)

    def write(self, text):
        if text.startswith("error: "):
            self.file.write(text + "\\n")

    def flush(self):
        self.file.flush()

sys.stderr = Errors()
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
sys.argv = ["pivq_jax/main.py", *{arguments!r}]
runpy.run_module("pivq_jax.main", run_name="__main__", alter_sys=True)
"""


def assert_same_end(workdir: Path, unbroken: Path, step: int) -> None:
    assert_same_state(workdir, unbroken, step)
    logged, expected = (read_lines(path / "log.jsonl") for path in (workdir, unbroken))
    assert [line["step"] for line in logged] == [line["step"] for line in expected]


def kill_at_random(commands, arguments, workdir, rng, most: float) -> bool:
    """SIGKILL up to `most` seconds after the first new checkpoint; False if it ended before."""
    before = max(checkpoint_steps(workdir), default=-1)
    command = commands.start(*arguments)
    deadline = time.monotonic() + 1_800
    while max(checkpoint_steps(workdir), default=-1) == before:
        assert time.monotonic() < deadline
        if ended(command.pid):
            return False
        time.sleep(0.01)
    time.sleep(rng.uniform(0, most))
    os.kill(command.pid, signal.SIGKILL)
    return command.wait().code == -signal.SIGKILL


def with_fields(arguments: list[str], workdir: Path, **fields: int) -> list[str]:
    """Of the tiny run, elsewhere and with other fields."""
    changed = [f"--config.train.{name}={value}" for name, value in fields.items()]
    return [*arguments[:-1], *changed, f"--workdir={workdir}"]


@pytest.mark.slow
@pytest.mark.parametrize("step, stopped, scored", [(2, 3, [1, 2]), (4, 4, [1, 2, 3, 4])])
def test_a_signal_during_an_evaluation_stops_the_run(tiny_config, tmp_path, step, stopped, scored):
    def measure(dataset, mesh, completed, *_):
        if completed == step:
            signal.raise_signal(signal.SIGTERM)
        return {"psnr": 20.0}, {}

    fields = {"evaluate.every": 1, "evaluate.share": 1.0, "checkpoints.keep_best": 1}
    with pytest.raises(Interrupted, match=f"stopped at step {stopped};") as end:
        train(tiny_config.with_fields({**SHORT, **fields}), tmp_path, measure)
    assert end.value.exit_code == 143
    progress = {
        step: (tmp_path / "checkpoints" / str(step) / "progress" / "metadata").read_text()
        for step in checkpoint_steps(tmp_path)
    }
    # Of the checkpoint of a stop there is none: seconds may be left.
    assert [step for step in progress if '"score"' in progress[step]] == scored


@pytest.mark.slow  # loop_test has SIGKILL and Ctrl-C
def test_a_run_with_every_fault_ends_as_the_unbroken_one(commands, tiny_run, tmp_path):
    workdir, rng = tmp_path / "run", random.Random(0)
    # So many checkpoints that one is always being written.
    arguments = with_fields(tiny_run.arguments, workdir, checkpoint_every=3)
    for _ in range(3):
        assert kill_at_random(commands, arguments, workdir, rng, most=0.3)
    assert checkpoint_steps(workdir)[-1] < 160, "it ended before the faults were over"

    # SIGTERM while a checkpoint is written.
    begun = checkpoint_steps(workdir)[-1]
    command = commands.start(*arguments)
    command.kill_when(lambda: checkpoint_steps(workdir)[-1] > begun, signal.SIGTERM)
    done = command.wait()
    stopped = checkpoint_steps(workdir)[-1]
    assert done.code == 143, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"stopped at step {stopped};")

    # A full disk: the run ends and says what is left.
    code = ON_A_FULL_DISK.format(limit=50_000, arguments=arguments)
    done = commands.run(code=code)
    assert done.code == 1, (done.stdout, done.stderr)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "could not be written" in errors[0] and f"step {stopped} is whole" in errors[0]
    assert checkpoint_steps(workdir)[-1] == stopped

    # A truncated file in the newest checkpoint: reported, and the one before is used.
    newest, before = checkpoint_steps(workdir)[-1], checkpoint_steps(workdir)[-2]
    largest = max(
        (p for p in (workdir / "checkpoints" / str(newest)).rglob("*") if p.is_file()),
        key=lambda p: p.stat().st_size,
    )
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    done = commands.run(*arguments)
    assert done.code == 0, done.stderr
    assert f"the checkpoint of step {newest}" in done.stderr
    assert f"resuming from step {before} " in done.stdout
    assert_same_end(workdir, tiny_run.workdir, 160)


@pytest.mark.slow
def test_a_run_killed_at_20_random_moments_ends_as_the_unbroken_one(commands, tiny_run, tmp_path):
    workdir, rng = tmp_path / "run", random.Random(1)
    arguments = with_fields(tiny_run.arguments, workdir, checkpoint_every=2)
    kills = stale = 0
    while kills < 20:
        if not kill_at_random(commands, arguments, workdir, rng, most=0.15):
            # It came to its end: the kills go on in a run of their own.
            assert_same_end(workdir, tiny_run.workdir, 160)
            workdir = tmp_path / f"run_{kills}"
            arguments = with_fields(tiny_run.arguments, workdir, checkpoint_every=2)
            continue
        kills += 1
        stale += bool(list(workdir.glob(".lock-*")))  # none if it was evaluating
    assert stale >= 15
    assert commands.run(*arguments).code == 0
    assert not list(workdir.glob(".lock-*"))
    assert_same_end(workdir, tiny_run.workdir, 160)


@pytest.mark.slow  # main_test has one refusal
def test_a_second_process_is_refused_20_times_and_the_first_unharmed(commands, tiny_run, tmp_path):
    refusals, runs, times = 0, 0, []
    while refusals < 20:
        workdir = tmp_path / f"run_{runs}"
        arguments = with_fields(tiny_run.arguments, workdir, checkpoint_every=1)
        first = commands.start(*arguments)
        while not (claims := list(workdir.glob(".lock-*"))):
            assert not ended(first.pid)
            time.sleep(0.01)
        while refusals < 20 and claims[0].exists():
            started = time.monotonic()
            second = commands.run(*arguments)
            times.append(time.monotonic() - started)
            if not claims[0].exists():  # the first may have ended before
                break
            assert second.code == 2 and times[-1] < 10, second
            (line,) = second.stderr.splitlines()
            assert f"process {first.pid} on {os.uname().nodename} for 0:0" in line
            refusals += 1
        done = first.wait()
        assert done.code == 0, done.stderr
        assert_same_end(workdir, tiny_run.workdir, 160)
        runs += 1
    print(f"20 refusals in {min(times):.1f} to {max(times):.1f} s, beside {runs} runs")


@pytest.mark.slow  # start_test and initial_test have its parts
def test_a_run_starts_from_another_run_and_goes_on_for_longer(commands, tiny_run, tmp_path):
    fields = ["model.num_codes=4", "quantizer.init_at=0", "train.steps=110"]
    fields = [f"--config.{field}" for field in fields]
    arguments = with_fields([*tiny_run.arguments, *fields, ""], tmp_path / "run")
    arguments.append(f"--init_from={tiny_run.workdir}")
    done = commands.run(*arguments)
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"starting from {tiny_run.workdir}, step 160: ")
    assert lines[0].endswith("; it has model.num_codes = 8")
    assert lines[1] == "  not taken: encoder/queries: [8, 16] there, [4, 16] here"
    assert "k-means" not in done.stdout
    logged = read_lines(tmp_path / "run" / "log.jsonl")
    expected = read_lines(tiny_run.workdir / "log.jsonl")[0]
    assert logged[0]["psnr"] > expected["psnr"] + 1  # than from random weights

    done = commands.run(*arguments, "--config.train.steps=120")
    assert done.code == 0, done.stderr
    assert "has its own checkpoint, of step 110" in done.stdout.splitlines()[0]
    assert "train.steps is raised from 110 to 120" in done.stdout
    assert "evaluating step 120" in done.stdout
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["step"] == 120


@pytest.mark.slow  # loop_test has it without a second process
def test_two_processes_are_refused_together(commands, tiny_run, tmp_path):
    arguments = with_fields(tiny_run.arguments, tmp_path, batch_size=16)
    with DirectoryLock(tmp_path):
        done = [command.wait() for command in start_both(commands, arguments)]
    assert [one.code for one in done] == [2, 2], [one.stderr for one in done]
    for one in done:
        (line,) = [line for line in one.stderr.splitlines() if line.startswith("error: ")]
        assert f"process {os.getpid()} on {os.uname().nodename}" in line
    assert not list(tmp_path.iterdir())


def start_both(commands, arguments: list[str]) -> list[Command]:
    """The same run in two processes, of four devices each."""
    return start_pair(lambda _, how: commands.start(*arguments, f"--distributed={how}", devices=4))


@pytest.mark.slow  # the agreement alone is in stopping_test
def test_two_processes_stop_at_one_step_and_go_on(commands, tiny_arguments, tmp_path):
    workdir, common = tmp_path / "run", [*tiny_arguments, "--workdir"]
    # Of 8 devices each has one image of the half of a batch that is recombined.
    arguments = with_fields(common, workdir, picture_every=80, batch_size=16)
    pair = start_both(commands, arguments)
    # Only one host receives the signal, as in a preemption.
    pair[1].kill_when(lambda: max(checkpoint_steps(workdir), default=0) >= 70, signal.SIGTERM)
    done = [command.wait() for command in pair]
    assert [one.code for one in done] == [143, 143], [one.stderr for one in done]
    step = checkpoint_steps(workdir)[-1]
    assert 70 <= step < 160
    for one in done:
        assert one.stdout.splitlines()[-1].startswith(f"stopped at step {step};")

    done = [command.wait() for command in start_both(commands, arguments)]
    assert [one.code for one in done] == [0, 0], [one.stderr for one in done]
    assert f"resuming from step {step} " in done[0].stdout
    assert "resuming" not in done[1].stdout  # what both would say is said by the first
    assert checkpoint_steps(workdir)[-1] == 160
    logged = read_lines(workdir / "log.jsonl")
    assert [line["step"] for line in logged] == list(range(5, 161, 5))
    assert (workdir / "pictures" / "step_000160.png").exists()
    # Of all images, whichever process read them: as one process with the same batches.
    alone = tmp_path / "alone"
    done = commands.run(*with_fields(common, alone, picture_every=80, batch_size=16))
    assert done.code == 0, done.stderr
    first = read_lines(alone / "log.jsonl")[0]
    for name in ("loss", "gradient_norm"):
        assert logged[0][name] == pytest.approx(first[name], rel=1e-3), name
    ended, expected = (json.loads((w / "metrics.json").read_text()) for w in (workdir, alone))
    assert ended["psnr"] == pytest.approx(expected["psnr"], abs=1.0)
    assert ended["step"] == 160


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_of_two_processes_one_is_killed_and_the_same_command_goes_on(
    commands, tiny_arguments, tmp_path, index
):
    """The other one ends by itself, with the checkpoints whole."""
    workdir, rng = tmp_path / "run", random.Random(index)
    fields = {**SHORT, "train.steps": 400, "train.log_every": 5, "train.checkpoint_every": 20}
    common = [*tiny_arguments, *(f"--config.{name}={fields[name]}" for name in fields), "--workdir"]
    arguments = with_fields(common, workdir, batch_size=16)
    pair = start_both(commands, arguments)
    log = workdir / "log.jsonl"

    def trains() -> bool:
        if begun := log.exists() and log.read_text().count("\n") >= 9:
            time.sleep(rng.uniform(0, 1))
        return begun

    pair[index].kill_when(trains, signal.SIGKILL)
    assert pair[index].wait().code == -signal.SIGKILL
    assert pair[1 - index].wait().code != 0
    step = checkpoint_steps(workdir)[-1]
    assert step >= 20

    done = [command.wait() for command in start_both(commands, arguments)]
    assert [one.code for one in done] == [0, 0], [one.stderr for one in done]
    assert f"resuming from step {step} " in done[0].stdout
    logged = read_lines(workdir / "log.jsonl")
    assert [line["step"] for line in logged] == list(range(5, 401, 5))
    assert not list(workdir.glob(".lock-*"))


@pytest.mark.slow
def test_a_preempted_run_makes_no_codebook_first(commands, tiny_arguments, tmp_path):
    workdir = tmp_path / "run"
    late = ["quantizer.init_at=0.5", "adversarial.start_at=0.5", "train.steps=200000"]
    late += ["train.checkpoint_every=200000", "train.picture_every=200000"]
    late += ["optimizer.name=adamw", "adversarial.weight=0", "adversarial.recombined_weight=0"]
    fields = [f"--config.{field}" for field in late]
    command = commands.start(*tiny_arguments, *fields, f"--workdir={workdir}")
    log = workdir / "log.jsonl"
    command.kill_when(lambda: log.exists() and bool(log.read_text()), signal.SIGTERM)
    done = command.wait()
    assert done.code == 143, done.stderr
    with pytest.raises(InputError, match="the codebook is initialised at step 100000: train on"):
        pivq_jax.load(workdir)


@pytest.mark.slow
def test_a_checkpoint_comes_before_an_evaluation_and_no_picture_after_a_stop(
    tiny_config, tmp_path, monkeypatch
):
    def fail(*_):
        raise MemoryError("of the evaluation")

    def write(log, step, *of_step):
        line(log, step, *of_step)
        if step == 2:  # as if it came while the metrics of this step were waited for
            signal.raise_signal(signal.SIGTERM)

    line = TrainingLog.write
    fields = {"evaluate.every": 3, "evaluate.share": 1.0, "train.picture_every": 2}
    config = tiny_config.with_fields({**SHORT, **fields})
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(TrainingLog, "write", write)
        train(config, tmp_path, fail)
    assert checkpoint_steps(tmp_path) == [1, 2] and not (tmp_path / "pictures").exists()
    with pytest.raises(MemoryError, match="of the evaluation"):
        train(config, tmp_path, fail)
    assert checkpoint_steps(tmp_path) == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 3])  # the decoder's own phase begins; within it
def test_a_run_whose_codes_are_fixed_goes_on_as_if_never_stopped(
    tiny_config, tmp_path, monkeypatch, step
):
    def write(log, number, *of_step):
        line(log, number, *of_step)
        if number == step:
            signal.raise_signal(signal.SIGTERM)

    line = TrainingLog.write
    fields = {"quantizer.freeze_at": 0.5, "quantizer.revive_every": 1, "train.ema_decay": 0.5}
    config = tiny_config.with_fields({**SHORT, **fields})
    train(config, tmp_path / "unbroken")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(TrainingLog, "write", write)
        train(config, tmp_path / "run")
    assert checkpoint_steps(tmp_path / "run")[-1] == step
    train(config, tmp_path / "run")
    unbroken = assert_same_state(tmp_path / "run", tmp_path / "unbroken", 4)

    # Codes are made by the averages that there were when they were fixed, and by them alone.
    fixed = restore_all(tmp_path / "unbroken", 2)
    for name, value in fixed.items():
        if name.startswith(("ema_params/encoder", "ema_params/quantizer")):
            for end in (name, name.removeprefix("ema_")):
                np.testing.assert_array_equal(unbroken[end], value, err_msg=end)
    assert any(
        not np.array_equal(unbroken[name], value)
        for name, value in fixed.items()
        if name.startswith("params/decoder")
    )
    assert any(
        not np.array_equal(fixed[name], fixed[f"ema_{name}"])
        for name in fixed
        if name.startswith("params/encoder")
    )


@pytest.mark.slow  # loop_test and main_test have what is quick
def test_a_run_with_evaluations_ends_as_without_also_if_stopped(commands, tiny_run, tmp_path):
    assert not (tiny_run.workdir / "metrics.jsonl").exists()
    workdir = tmp_path / "run"
    arguments = [*tiny_run.arguments[:-1], f"--workdir={workdir}"]
    arguments += ["--config.evaluate.every=25", "--config.evaluate.share=1"]
    stopped = interrupt_at(commands.start(*arguments), workdir, 80, signal.SIGINT)
    assert stopped.code == 130, stopped.stderr
    before = read_lines(workdir / "metrics.jsonl")
    done = commands.run(*arguments)
    assert done.code == 0, done.stderr
    assert_same_state(workdir, tiny_run.workdir, 160)

    found = read_lines(workdir / "metrics.jsonl")
    assert [line["step"] for line in found] == [25, 50, 75, 100, 125, 150]
    assert found[: len(before)] == before and 3 <= len(before) < 6
    always = {"step", "psnr", "rfid", "seconds", "share"}  # images are too small for LPIPS
    with_codes = always | {"fid", "density", "coverage", "codes_used"}
    assert [set(line) for line in found] == [always] * 2 + [with_codes] * 4
    for line in found:
        assert all(np.isfinite(value) for value in line.values()) and 0 < line["share"] < 1
        assert line["seconds"] > 0
    assert found[-1]["share"] > found[len(before)]["seconds"] / 1_000
    for part, lines in ((stopped, before), (done, found[len(before) :])):
        said = [line for line in part.stdout.splitlines() if "  evaluated: psnr " in line]
        assert [int(line.split()[1].split("/")[0]) for line in said] == [
            line["step"] for line in lines
        ]
        for text, line in zip(said, lines, strict=True):
            assert f"in {line['seconds']:.1f} s, all so far {line['share']:.1%} of the time" in text
    assert (workdir / "report" / "training.png").exists()
    assert "Averaged weights by step" in (workdir / "report" / "index.html").read_text()


@pytest.mark.slow
def test_two_processes_evaluate_together_and_train_as_without(commands, tiny_run, tmp_path):
    fields = ["batch_size=16", "steps=80", "picture_every=80"]
    common = [*tiny_run.arguments[:-1], *(f"--config.train.{field}" for field in fields)]
    common += ["--config.adversarial.start_at=0.875", "--config.mesh.fsdp=2"]
    workdirs = [tmp_path / name for name in ("with", "without")]
    every = ["--config.evaluate.every=35", "--config.evaluate.share=1"]
    for workdir, more in zip(workdirs, (every, []), strict=True):
        pair = start_both(commands, [*common, *more, f"--workdir={workdir}"])
        done = [command.wait() for command in pair]
        assert [one.code for one in done] == [0, 0], [one.stderr for one in done]
        assert ["evaluated" in one.stdout for one in done] == [bool(more), False]
    assert_same_state(*workdirs, 80)
    assert [line["step"] for line in read_lines(workdirs[0] / "metrics.jsonl")] == [35, 70]
    assert {"rfid", "coverage", "codes_used"} <= read_lines(workdirs[0] / "metrics.jsonl")[1].keys()
