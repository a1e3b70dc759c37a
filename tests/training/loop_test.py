"""Runs by the real command: the loss falls, and no interruption changes the result."""

import dataclasses
import itertools
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image
from scipy.optimize import linear_sum_assignment

import pivq_jax
from pivq_jax.common.errors import InputError
from pivq_jax.common.parallel import make_mesh
from pivq_jax.data import load_dataset
from pivq_jax.data.images import images_to_float
from pivq_jax.data.pipeline import shuffle_version
from pivq_jax.interop.safetensors_file import model_shapes
from pivq_jax.training import loop
from pivq_jax.training.objective import Phase, check_phases, phase_at, recombination_factor
from pivq_jax.training.steps import Steps
from tests.conftest import checkpoint_steps, read_lines
from tests.parameters import draw_like

TIMINGS = {"train_seconds", "train_images_per_second", "sample_images_per_second"}


def restore_all(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Every leaf of a checkpoint's state, read without the project's code."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        path = workdir / "checkpoints" / str(step) / "state"
        saved = checkpointer.metadata(path)
        saved = getattr(saved, "item_metadata", saved)
        # As NumPy arrays: those of several devices have no place here.
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved.tree)
        tree = checkpointer.restore(path, restore_args=how)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }


def assert_same_state(workdir: Path, other: Path, step: int) -> dict[str, np.ndarray]:
    """Compares the leaves of two checkpoints; returns those of the other run."""
    found, expected = restore_all(workdir, step), restore_all(other, step)
    assert found.keys() == expected.keys() and len(expected) > 60
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    return expected


def test_phases_begin_at_their_steps(tiny_config):
    tiny_config = tiny_config.with_fields({"adversarial.start_at": 0.625})
    steps = (0, 59, 60, 99, 100, 159)
    expected = [Phase.CONTINUOUS] * 2 + [Phase.QUANTIZED] * 2 + [Phase.ADVERSARIAL] * 2
    assert [phase_at(tiny_config, step) for step in steps] == expected
    weights = ("adversarial.weight", "adversarial.recombined_weight")
    config = tiny_config.with_fields(dict.fromkeys(weights, 0.0))
    # With or without a discriminator, codes are fixed from their own step on.
    for each, before in ((tiny_config, Phase.ADVERSARIAL), (config, Phase.QUANTIZED)):
        fixed = each.with_fields({"quantizer.freeze_at": 0.75})
        found = [phase_at(fixed, step) for step in (119, 120, 159)]
        assert found == [before, Phase.DECODER, Phase.DECODER]


@pytest.mark.parametrize(
    "step, steps, flags",
    [
        (0, 10_000, None),
        (59, 320, None),  # the codebook, of step 60 of 160, becomes that of step 120
        (61, 320, {"quantizer.init_at": 0.1875, "adversarial.start_at": 0.3125}),
        (121, 240, {"quantizer.init_at": 0.25, "adversarial.start_at": 0.416667}),
    ],
)
def test_a_longer_run_does_not_undo_what_it_has_begun(tiny_config, step, steps, flags):
    planned = tiny_config.with_fields({"adversarial.start_at": 0.625})
    config = planned.with_fields({"train.steps": steps})
    if flags is None:
        return check_phases(config, planned, step)
    with pytest.raises(InputError, match=f"a run at step {step} is before what") as refusal:
        check_phases(config, planned, step)
    found = re.findall(r"--config\.(\S+)=(\S+)", str(refusal.value))
    assert {name: float(share) for name, share in found} == flags
    check_phases(config.with_fields(flags), planned, step)


@pytest.mark.parametrize("warmup, expected", [(0.0, [1, 1, 1, 1]), (0.5, [0, 0, 0.5, 1])])
def test_recombination_s_weight_rises_from_the_codebook_on(tiny_config, warmup, expected):
    config = tiny_config.with_fields({"loss.recombination_warmup": warmup})  # 60 of 160 steps
    assert [float(recombination_factor(config, step)) for step in (0, 60, 85, 160)] == expected


def run_of(config, **fields) -> loop.Run:
    """A run that has the given fields alone."""
    names = [field.name for field in dataclasses.fields(loop.Run)]
    return loop.Run(**{**dict.fromkeys(names), "config": config, **fields})


@pytest.mark.parametrize(
    "fields, revivals",
    [
        ({"quantizer.revive_until": 0.6}, [70, 80, 90]),  # of 160 steps
        # Neither at the step from which codes are fixed, nor later.
        ({"quantizer.revive_until": 1.0, "quantizer.freeze_at": 0.5625}, [70, 80]),
    ],
)
def test_the_codebook_is_made_once_and_revived_at_its_times(
    tiny_config, monkeypatch, fields, revivals
):
    config = tiny_config.with_fields(fields)
    called, state = [], SimpleNamespace(params=None)

    def initialise(given, latents):
        called.append(("initialise", step, latents.shape))
        return given

    def revive(given, images):
        called.append(("revive", step, images))
        return given, 1

    def batches(run, first_step):
        assert first_step == 60
        while True:
            yield None

    steps = SimpleNamespace(
        latents=lambda params, images: jnp.zeros((8, 8, 8)), initialise=initialise, revive=revive
    )
    monkeypatch.setattr(loop, "_batches", batches)
    run = run_of(config, steps=steps)
    for step in range(160):
        assert loop._initialize_or_revive_codebook(run, state, step, "images") is state
    revived = [("revive", step, "images") for step in revivals]
    assert called == [("initialise", 60, (8, 8, 8, 8)), *revived]


@pytest.mark.parametrize("made_by", [shuffle_version(), "grain 0.0.1"])
def test_another_order_of_the_images_is_mentioned(tiny_config, capsys, made_by):
    restored = SimpleNamespace(step=7), {"data": "faces", "order": made_by}
    run = run_of(
        tiny_config,
        checkpoints=SimpleNamespace(latest_step=lambda: 7, restore=lambda *_: restored),
        dataset=SimpleNamespace(identity="faces"),
        steps=SimpleNamespace(create=lambda: None),
    )
    loop._first_state(run)
    said = capsys.readouterr().out
    assert ("order of the images may change" in said) == (made_by == "grain 0.0.1")


def test_validation_is_of_real_images_by_the_averaged_weights(tiny_config):
    mesh, data = make_mesh(), load_dataset("random", image_size=16)
    steps = Steps(tiny_config, mesh)
    params = draw_like(model_shapes(tiny_config), np.random.default_rng(0))
    averages = jax.tree.map(lambda x: 1.5 * x + 0.01, params)
    state: Any = SimpleNamespace(params=params, ema_params=averages)
    run = run_of(tiny_config, mesh=mesh, steps=steps, dataset=data)
    shown, made = loop.reconstruct_validation(run, state, Phase.CONTINUOUS, most=11)  # two batches
    np.testing.assert_array_equal(shown, [data.validation[i]["image"] for i in range(11)])
    averaged, last = (
        steps.reconstruct(x, jnp.asarray(shown[:8]), False) for x in (averages, params)
    )
    assert len(made) == 11
    np.testing.assert_allclose(made[:8].astype(int), np.asarray(averaged).astype(int), atol=1)
    assert np.abs(made[:8].astype(int) - np.asarray(last)).mean() > 2


@pytest.mark.parametrize("phase", [Phase.CONTINUOUS, Phase.QUANTIZED])
def test_an_evaluator_gets_averaged_weights_once_there_is_a_codebook(tiny_config, phase):
    mesh, data = make_mesh(), load_dataset("random", image_size=16)
    given = []

    def measure(*arguments):
        given.append(arguments)
        return {"psnr": 20.0}, {}

    steps = SimpleNamespace(reconstruct=lambda params, images, quantize: images // (1 + quantize))
    state: Any = SimpleNamespace(params={"x": jnp.zeros(3)}, ema_params={"x": jnp.arange(3.0)})
    run = run_of(tiny_config, mesh=mesh, steps=steps, dataset=data, evaluator=measure)
    assert loop.evaluate(run, state, 5, phase) == ({"psnr": 20.0}, {})
    [(*begin, params, reconstruct)] = given
    shown, made = reconstruct(11)
    assert begin == [data, mesh, 5] and len(shown) == 11
    assert params is None if phase == Phase.CONTINUOUS else params["x"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(made, shown // (1 if phase == Phase.CONTINUOUS else 2))


def test_pictures_are_written_and_a_bucket_that_refuses_one_ends_no_run(
    tiny_config, bucket, monkeypatch, capsys
):
    def refuse(path, content):
        raise RuntimeError("503 try again")

    data = load_dataset("random", image_size=128)
    steps = SimpleNamespace(reconstruct=lambda params, images, quantize: images // 2)
    run = run_of(tiny_config, mesh=make_mesh(), steps=steps, dataset=data, workdir=bucket)
    state: Any = SimpleNamespace(ema_params=None)
    loop.save_picture(run, state, 7, Phase.QUANTIZED)
    with (bucket / "pictures" / "step_000007.png").open("rb") as file:
        picture = np.asarray(Image.open(file))
    assert picture.shape[:2] == (2 * 130 + 2, 8 * 130 + 2)
    np.testing.assert_array_equal(picture[2:130, 2:130], data.validation[0]["image"])
    monkeypatch.setattr(type(bucket), "write_bytes", refuse)
    loop.save_picture(run, state, 8, Phase.QUANTIZED)
    assert "step_000008.png is not written, and the run goes on" in capsys.readouterr().err


def test_a_run_learns_and_its_log_says_what_was_trained(tiny_run):
    log = read_lines(tiny_run.workdir / "log.jsonl")
    assert [line["step"] for line in log] == list(range(5, 161, 5))
    for line in log:
        assert all(np.isfinite(value) for value in line.values())
        assert ("quantization_error" in line) == (line["step"] > 60)
        assert ("discriminator" in line) == (line["step"] > 60)
    early, late = (np.mean([line["l1"] for line in part]) for part in (log[:3], log[-3:]))
    before_codebook = np.mean([line["l1"] for line in log if 45 <= line["step"] <= 60])
    assert before_codebook < 0.8 * early and late < 0.8 * early
    assert log[-1]["psnr"] > log[0]["psnr"] + 2.0
    # Linear warm-up over 10 steps to the peak, then down; the rate of step s is that of s - 1.
    rates = {line["step"]: line["learning_rate"] for line in log}
    assert rates[5] == pytest.approx(1.5e-3 * 4 / 10)
    assert rates[160] < 0.01 * 1.5e-3
    assert max(rates.values()) <= 1.5e-3 * (1 + 1e-6)


def costs(stdout: str) -> dict[str, str]:
    """The rows of the table at the end of a run."""
    lines = [line.strip("| ").split(" | ") for line in stdout.splitlines() if line[:1] == "|"]
    return {cells[0]: cells[1] for cells in lines}


def test_the_console_of_a_run_tells_its_phases_and_costs(tiny_run):
    lines = tiny_run.finished.stdout.splitlines()
    assert sum("initialised by k-means" in line for line in lines) == 1
    assert [line for line in lines if "compiling" in line] == [
        "step      0: compiling the continuous training step",
        "step     60: compiling the adversarial training step",
    ]
    assert any(line.startswith("step    160/160") and "ETA 0:00" in line for line in lines)
    line = read_lines(tiny_run.workdir / "log.jsonl")[-1]
    lost = {name: value for name, value in line.items() if name.startswith("seconds_")}
    assert min(lost.values()) == lost["seconds_restarts"] == 0
    assert lost["seconds_start"] > lost["seconds_input"] and lost["seconds_pictures"] > 0
    assert line["goodput"] == pytest.approx(1 - sum(lost.values()) / line["seconds"])
    table = costs(tiny_run.finished.stdout)
    assert table["steps"] == "160" and table["restarts"] == "0:00 (0.0%)"
    share = table["share of the peak, waiting included"]
    assert 0 < float(share.rstrip("%")) < 100 and 0 < line["peak_share"] < 1


def test_a_kill_and_ctrl_c_are_resumed_and_their_time_counts(interrupted):
    killed, stopped = interrupted["steps"]
    parts = interrupted["parts"]
    assert [part.code for part in parts] == [-9, 130, 0], [part.stderr for part in parts]
    assert 20 <= killed < 60 < stopped < 160
    for step, part in zip((killed, stopped), parts[1:], strict=True):
        assert f"resuming from step {step} " in part.stdout
    assert parts[1].stdout.splitlines()[-1].startswith(f"stopped at step {stopped};")
    assert "Traceback" not in parts[1].stderr
    log = read_lines(interrupted["workdir"] / "log.jsonl")
    assert all(a["seconds"] < b["seconds"] for a, b in itertools.pairwise(log))
    restarts = {line["step"]: line["seconds_restarts"] for line in log}
    assert restarts[max(step for step in restarts if step <= killed)] == 0
    assert 0 < restarts[stopped // 5 * 5] < restarts[160] < log[-1]["seconds"]
    tables = [costs(part.stdout) for part in parts]
    assert tables[0] == {} and [x["steps"] for x in tables[1:]] == [f"{stopped}", "160"]


def test_a_checkpoint_before_the_codebook_s_start_is_a_model(interrupted, faces):
    early, late = (
        pivq_jax.load(interrupted["workdir"].with_name(name)) for name in ("early", "run")
    )
    assert early.step == interrupted["steps"][0] < 60
    assert (early.progress["codebook"], late.progress["codebook"]) == ("fitted", "trained")
    codes, latents = early.encode_with_latents(images_to_float(faces[:, ::3, ::3]))
    entries = np.asarray(early.codebook)[np.asarray(codes)]
    errors = ((np.asarray(latents)[:, :, None] - entries[:, None]) ** 2).sum(-1)
    error = sum(errors[i][linear_sum_assignment(errors[i])].sum() for i in range(len(errors)))
    assert error < 0.5 * ((latents - latents.mean((0, 1))) ** 2).sum()


def test_an_interrupted_run_ends_bit_for_bit_as_the_unbroken_one(tiny_run, interrupted):
    unbroken = assert_same_state(interrupted["workdir"], tiny_run.workdir, 160)
    least = {"params": 20, "opt_state": 40, "discriminator": 5, "discriminator_opt_state": 10}
    for kind, count in least.items():
        assert sum(name.startswith(f"{kind}/") for name in unbroken) > count, kind
    assert checkpoint_steps(tiny_run.workdir) == [140, 160]  # no others are kept
    speeds = {"images_per_second", "step_seconds", "input_wait", "goodput", "peak_share"}
    resumed, expected = (
        [
            {k: v for k, v in line.items() if k not in speeds and not k.startswith("seconds")}
            for line in read_lines(workdir / "log.jsonl")
        ]
        for workdir in (interrupted["workdir"], tiny_run.workdir)
    )
    assert resumed == expected


@pytest.mark.slow
def test_an_interrupted_run_has_the_same_metrics_and_pictures(commands, tiny_run, interrupted):
    done = commands.run(*interrupted["arguments"])
    assert done.code == 0, done.stderr
    workdir = interrupted["workdir"]
    resumed = json.loads((workdir / "metrics.json").read_text())
    assert resumed.keys() == tiny_run.metrics.keys()
    for name in resumed.keys() - TIMINGS:
        assert resumed[name] == tiny_run.metrics[name], name
    pictures = {path.relative_to(workdir) for path in workdir.rglob("*.png")}
    names = {path.name for path in pictures}
    assert names >= {"samples.png", "interpolations.png", "reconstructions.png", "parents.png"}
    for path in pictures:
        assert (tiny_run.workdir / path).read_bytes() == (workdir / path).read_bytes(), path


def test_divergence_before_the_first_checkpoint_names_none(tiny_config):
    checkpoints = SimpleNamespace(latest_step=lambda: None, set_aside=lambda step: False)
    run: Any = SimpleNamespace(config=tiny_config, checkpoints=checkpoints)
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 3: .*; none was saved$"):
        loop.check_finite(run, 3, {"loss": jnp.float32(np.nan)})


@pytest.mark.slow
def test_a_checkpoint_whose_next_loss_is_not_finite_is_not_the_last_good_one(
    tiny_config, tmp_path, monkeypatch
):
    fields = {
        "data.name": "random",
        "quantizer.init_at": 0.0,
        "adversarial.weight": 0.0,
        "adversarial.recombined_weight": 0.0,
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 1e38,  # from the second step on
        "optimizer.warmup": 0.1,
        "train.steps": 9,
        "train.log_every": 50,
        "train.checkpoint_every": 1,
    }
    config = tiny_config.with_fields(fields)

    def killed(run: loop.Run, step: int, metrics: Any) -> dict[str, float]:
        if step == 3:
            raise KeyboardInterrupt
        return {name: float(value) for name, value in metrics.items()}

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "check_finite", killed)
        loop.train(config, tmp_path)
    assert checkpoint_steps(tmp_path) == [1, 2]
    message = (
        r"the loss is nan at step 3: lower optimizer\.learning_rate, .*; the weights of step 2 gave"
        " it and are set aside; the last good checkpoint is that of step 1$"
    )
    for _ in range(2):  # from step 2, which is there; from step 1, after the save of step 2
        with pytest.raises(FloatingPointError, match=message):
            loop.train(config, tmp_path)
        assert checkpoint_steps(tmp_path) == [1]
    for name, value in restore_all(tmp_path, 1).items():
        assert np.all(np.isfinite(value)), name


@pytest.mark.slow
def test_loss_that_is_not_finite_stops_the_run(commands, tiny_arguments, tmp_path):
    arguments = [
        *tiny_arguments,
        "--config.optimizer.learning_rate=1e25",
        "--config.optimizer.name=adamw",
        "--config.adversarial.weight=0",
        "--config.adversarial.recombined_weight=0",
        "--config.optimizer.warmup=0.25",
        "--config.train.checkpoint_every=1",
        "--config.train.log_every=1",
        f"--workdir={tmp_path / 'run'}",
    ]
    done = commands.run(*arguments)
    assert done.code == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "learning_rate" in errors[0] and "Traceback" not in done.stderr
    steps = [int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir() if p.name.isdigit()]
    assert f"step {max(steps)}" in errors[0]
    for name, value in restore_all(tmp_path / "run", max(steps)).items():
        assert np.all(np.isfinite(value)), name
    assert all(np.isfinite(line["loss"]) for line in read_lines(tmp_path / "run" / "log.jsonl"))
