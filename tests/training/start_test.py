"""Runs that start from given weights, and runs that go on for longer than was planned."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax.traverse_util import flatten_dict

from pivq_jax.common.errors import InputError
from pivq_jax.config.check import check_workdir
from pivq_jax.config.fields import Config
from pivq_jax.interop.safetensors_file import model_shapes
from pivq_jax.training.loop import train
from pivq_jax.training.optimizer import learning_rate_schedule
from pivq_jax.training.steps import CODEBOOK, Arrays
from tests.conftest import read_lines

SHORT = {
    "data.name": "random",
    "model.encoder_depth": 1,
    "model.set_depth": 0,
    "model.decoder_depth": 1,
    "quantizer.kind": "nearest",
    "quantizer.init_at": 0.0,
    "loss.recombination": 0.0,
    "adversarial.weight": 0.0,
    "adversarial.recombined_weight": 0.0,
    "optimizer.name": "adamw",
    "optimizer.warmup": 0.25,
    "train.steps": 4,
    "train.log_every": 1,
    "train.checkpoint_every": 1,
    "checkpoints.keep": 9,
}


class Started(NamedTuple):
    """A run of four steps, quantized from the first on."""

    workdir: Path
    config: Config
    arrays: Arrays
    copies: Arrays  # made before training


@pytest.fixture(scope="module")
def config(tiny_config) -> Config:
    return tiny_config.with_fields(SHORT)


@pytest.fixture(scope="module")
def started(config, tmp_path_factory) -> Started:
    workdir = tmp_path_factory.mktemp("started")
    rng = np.random.default_rng(0)
    arrays = {
        path: (0.1 * rng.normal(size=x.shape)).astype(np.float32)
        for path, x in flatten_dict(model_shapes(config)).items()
        if path[0] != "decoder"
    }
    copies = {path: array.copy() for path, array in arrays.items()}
    train(config, workdir, initial=lambda given: arrays if given == config else {})
    return Started(workdir, config, arrays, copies)


def state_at(workdir: Path, step: int) -> dict:
    """The state of a checkpoint, read without the project's code."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(workdir / "checkpoints" / str(step) / "state")


def assert_same(workdir: Path, other: Path, step: int) -> None:
    jax.tree.map(np.testing.assert_array_equal, state_at(workdir, step), state_at(other, step))


def without_checkpoints(run: Path, target: Path, *steps: int) -> Path:
    """A copy of a run that was killed before these checkpoints."""
    shutil.copytree(run, target)
    for step in steps:
        shutil.rmtree(target / "checkpoints" / str(step))
    return target


def rates(workdir: Path) -> list[float]:
    lines = read_lines(workdir / "log.jsonl")
    assert [line["step"] for line in lines] == [*range(1, len(lines) + 1)]
    return [line["learning_rate"] for line in lines]


@pytest.mark.slow
def test_a_run_starts_from_given_weights_with_their_codebook(started):
    names = sorted("/".join(path) for path in started.arrays)
    assert json.loads((started.workdir / "init_from.json").read_text()) == names
    # The learning rate of the first step is 0, so that its weights are those before it.
    first = state_at(started.workdir, 1)
    params, averages = (flatten_dict(first[name]) for name in ("params", "ema_params"))
    assert params.keys() > started.arrays.keys() and CODEBOOK in started.arrays
    for path, array in started.copies.items():
        np.testing.assert_array_equal(params[path], array)
        np.testing.assert_allclose(averages[path], array, rtol=1e-6, atol=1e-9)
    last = flatten_dict(state_at(started.workdir, 4)["params"])
    for path, array in started.copies.items():
        np.testing.assert_array_equal(started.arrays[path], array)  # never written to
        assert (last[path] != array).any(), path


def not_called(config: Config) -> Arrays:
    raise AssertionError("the weights are not needed any more")


@pytest.mark.slow
def test_the_same_command_goes_on_from_the_checkpoint(started, tmp_path, capsys):
    workdir = without_checkpoints(started.workdir, tmp_path / "run", 3, 4)
    config = started.config.with_fields({"profile.first_step": 1, "profile.steps": 1})
    train(config, workdir, initial=not_called)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        f"{workdir} has its own checkpoint, of step 2, from which it goes on"
    )
    assert f"resuming from step 2 in {workdir}" in lines
    passed = "no profile is recorded: step 2 is past profile.first_step = 1"
    assert lines.count(passed) == 1
    assert_same(workdir, started.workdir, 4)
    # The wait for the first images is part of the restart, as the step after it is.
    _, before, after, _ = read_lines(workdir / "log.jsonl")
    assert before["seconds_input"] == after["seconds_input"]


@pytest.fixture(scope="module")
def longer(started, tmp_path_factory) -> Started:
    """The run, continued to step 8."""
    workdir = without_checkpoints(started.workdir, tmp_path_factory.mktemp("longer") / "run")
    return started._replace(workdir=workdir, config=started.config.with_fields({"train.steps": 8}))


@pytest.mark.slow
def test_a_run_goes_on_for_longer_with_another_schedule(started, longer, capsys):
    train(longer.config, longer.workdir)
    schedule = learning_rate_schedule(longer.config.optimizer, 8)
    assert (
        "train.steps is raised from 4 to 8: from step 4 on, the schedule is that of 8 steps, with a"
        f" learning rate of {float(schedule(4)):.3g} instead of 0, which falls to 0"
    ) in capsys.readouterr().out.splitlines()
    assert rates(longer.workdir)[:4] == rates(started.workdir)
    expected = [float(schedule(step)) for step in range(4, 8)]
    assert rates(longer.workdir)[4:] == pytest.approx(expected) and expected[0] > 5e-4
    assert json.loads((longer.workdir / "config.json").read_text())["train"]["steps"] == 8
    assert_same(longer.workdir, started.workdir, 4)


@pytest.mark.slow
def test_more_steps_keep_the_steps_at_which_phases_began(config, tmp_path):
    fixed = config.with_fields({"quantizer.freeze_at": 0.5})
    train(fixed, tmp_path)
    longer = fixed.with_fields({"train.steps": 8})
    with pytest.raises(InputError, match=r"give .*--config\.quantizer\.freeze_at=0\.25 as well"):
        train(longer, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == fixed.to_dict()
    longer = longer.with_fields({"quantizer.freeze_at": 0.25})
    train(longer, tmp_path)
    first, last = (flatten_dict(state_at(tmp_path, step)["params"]) for step in (4, 8))
    changed = {path[0] for path in first if (first[path] != last[path]).any()}
    assert changed == {"decoder"}


@pytest.mark.slow
def test_a_longer_run_is_resumed_bit_for_bit(longer, tmp_path, capsys):
    if not (longer.workdir / "checkpoints" / "8").exists():  # this test alone
        train(longer.config, longer.workdir)
    again = without_checkpoints(longer.workdir, tmp_path / "again", 6, 7, 8)
    capsys.readouterr()
    train(longer.config, again)
    assert "is raised" not in capsys.readouterr().out
    assert_same(again, longer.workdir, 8)


@pytest.mark.parametrize("steps, extends", [(3, True), (5, False)])
def test_fewer_steps_and_more_than_a_model_has_are_another_config(config, tmp_path, steps, extends):
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    other = config.with_fields({"train.steps": steps})
    with pytest.raises(InputError, match=r"another config, with train\.steps = 4:"):
        check_workdir(other, tmp_path, extends=extends)


@pytest.mark.slow
def test_a_run_that_died_before_its_first_step_may_begin_with_another_config(started, tmp_path):
    larger = started.config.with_fields({"train.batch_size": 4_096})
    (tmp_path / "config.json").write_text(json.dumps(larger.to_dict()))
    (tmp_path / "init_from.json").write_text("[]")
    (tmp_path / "checkpoints").mkdir()
    train(started.config, tmp_path, initial=lambda config: started.copies)
    assert json.loads((tmp_path / "config.json").read_text()) == started.config.to_dict()
    assert_same(tmp_path, started.workdir, 4)


def test_a_run_that_died_before_its_first_checkpoint_needs_its_weights_again(config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    (tmp_path / "init_from.json").write_text("[]")
    with pytest.raises(InputError, match=r"no checkpoint yet: give --init_from again, or choose"):
        train(config, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("kind", ["published", "another program's", "a run that logged a step"])
def test_a_config_of_anything_else_is_not_replaced(config, tmp_path, kind):
    values = config.with_fields({"train.batch_size": 4_096}).to_dict()
    if kind == "a run that logged a step":
        (tmp_path / "log.jsonl").write_text('{"step": 50, "seconds": 9.0}\n')
    else:
        values = {"config": values} if kind == "published" else {"mine": 1}
    (tmp_path / "config.json").write_text(content := json.dumps(values))
    with pytest.raises(InputError, match="of another config"):
        train(config, tmp_path)
    assert (tmp_path / "config.json").read_text() == content


def test_nothing_is_written_if_the_weights_are_refused(config, tmp_path):
    def refuse(config: Config) -> Arrays:
        raise InputError("nothing fits")

    with pytest.raises(InputError, match="nothing fits"):
        train(config, tmp_path / "run", initial=refuse)
    assert not (tmp_path / "run").exists()
