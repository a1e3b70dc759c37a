"""Nothing that is trained depends on evaluations during training."""

import signal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pivq_jax.common.parallel import make_mesh
from pivq_jax.common.stopping import Interrupted
from pivq_jax.data import load_dataset
from pivq_jax.training import loop
from pivq_jax.training.logs import TrainingLog
from pivq_jax.training.objective import Phase
from pivq_jax.training.run import save_picture
from tests.conftest import checkpoint_steps, interrupt_at, read_lines
from tests.training.loop_test import assert_same_state, run_of
from tests.training.resume_test import start_both
from tests.training.start_test import SHORT


def test_a_picture_that_a_bucket_refuses_ends_no_run(tiny_config, bucket, monkeypatch, capsys):
    def refuse(path, content):
        raise RuntimeError("503 try again")

    monkeypatch.setattr(type(bucket), "write_bytes", refuse)
    data = load_dataset("random", image_size=16)
    steps = SimpleNamespace(reconstruct=lambda params, images, quantize: images)
    run = run_of(tiny_config, mesh=make_mesh(), steps=steps, dataset=data, workdir=bucket)
    state: Any = SimpleNamespace(ema_params=None)
    save_picture(run, state, 7, Phase.CONTINUOUS)
    path = "gs://bucket/run/pictures/step_000007.png"
    assert capsys.readouterr().err == (
        f"{path} is not written, and the run goes on: 503 try again\n"
    )


@pytest.mark.slow
def test_a_checkpoint_comes_before_an_evaluation_and_no_picture_after_a_stop(
    tiny_config, tmp_path, monkeypatch
):
    def fail(*_):
        raise MemoryError("of the evaluation")

    fail.images = 8

    def write(log, step, *of_step):
        line(log, step, *of_step)
        if step == 2:  # as if it came while the metrics of this step were waited for
            signal.raise_signal(signal.SIGTERM)

    line = TrainingLog.write
    fields = {"evaluate.every": 3, "evaluate.share": 1.0, "train.picture_every": 2}
    config = tiny_config.with_fields({**SHORT, **fields})
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(TrainingLog, "write", write)
        loop.train(config, tmp_path, fail)
    assert checkpoint_steps(tmp_path) == [1, 2] and not (tmp_path / "pictures").exists()
    with pytest.raises(MemoryError, match="of the evaluation"):
        loop.train(config, tmp_path, fail)
    assert checkpoint_steps(tmp_path) == [1, 2, 3]


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
    common += ["--config.adversarial.start_step=70", "--config.mesh.fsdp=2"]
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
