"""What a run costs: the time it is lost to, the FLOPs of a step, the device's peak."""

import json
import time
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from pivq_jax.common.parallel import make_mesh
from pivq_jax.training import cost
from pivq_jax.training.cost import Clock, lower_step, peak_of, step_flops
from pivq_jax.training.objective import Phase


@pytest.fixture
def now(monkeypatch):
    """The time, in its only entry."""
    time = [100.0]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: time[0])
    return time


def spend(clock, now, what, seconds):
    with clock.on_evaluation() if what == "evaluations" else clock.on(what):
        now[0] += seconds


def test_an_evaluation_waits_until_the_share_has_room_for_it(now):
    clock = Clock(started=now[0])
    assert clock.allows(0.05)  # how long it takes is not known yet
    now[0] += 30
    spend(clock, now, "evaluations", 10)
    spend(clock, now, "checkpoints", 0)
    assert clock.last == 10 == clock.spent["evaluations"]
    for passed, allowed in ((40, False), (389, False), (391, True)):
        now[0] = 100 + passed
        assert clock.allows(0.05) == allowed  # 20 of 400 seconds
        assert clock.allows(1.0)
    spend(clock, now, "evaluations", 2)  # nothing is compiled any more
    now[0] = 100 + 396
    assert clock.allows(0.05) == (12 + 2 <= 0.05 * (396 + 2))
    assert clock.seconds() == 396


def test_the_compilation_of_an_evaluation_is_none_of_its_time():
    clock = Clock()
    for compiles in (True, False):
        program = jax.jit(lambda x: jax.lax.fori_loop(0, 9, lambda _, y: jnp.sort(y @ x), x))
        x = jnp.ones((64, 64))
        if not compiles:
            program(x)
        before, started = dict(clock.spent), time.perf_counter()
        with clock.on_evaluation():
            program(x).block_until_ready()
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        compilation = clock.spent["start"] - before["start"]
        assert clock.spent["evaluations"] - before["evaluations"] == pytest.approx(clock.last)
        assert 0.05 < clock.last <= clock.last + compilation <= seconds
        assert (compilation > 0) == compiles


def test_one_process_without_time_keeps_all_from_it(now, monkeypatch):
    clock = Clock(started=now[0])
    assert clock.allows(0.05)
    monkeypatch.setattr(cost.parallel, "max_over_processes", lambda over: 1)
    assert not clock.allows(0.05)


def test_a_resumed_run_counts_on(now):
    first = Clock(peak=2e9, flops=8e9, started=now[0])
    spend(first, now, "start", 20)
    for _ in range(3):
        now[0] += 10  # a step
        first.count_step()
    spend(first, now, "evaluations", 6)
    kept = first.progress()
    assert kept["train_seconds"] == 56

    now[0] += 1_000  # nobody runs
    clock = Clock(kept["train_seconds"], **kept["cost"], peak=2e9, flops=8e9, started=now[0])
    spend(clock, now, "restarts", 24)
    spend(clock, now, "input", 5)
    assert not clock.allows(0.05)  # 6 of 85 seconds
    now[0] += 5
    expected = {"start": 20, "restarts": 24, "input": 5, "evaluations": 6}
    figures = clock.figures()
    assert figures["seconds"] == 90 and figures["goodput"] == pytest.approx(35 / 90)
    assert {x: figures[f"seconds_{x}"] for x in expected} == expected
    # Steps are dispatched, and may be computed in the 5 seconds of waiting for images.
    found = clock.cost(3, 8, make_mesh(devices=jax.devices()[:1]))
    assert (found.total, found.share) == (90, pytest.approx(12 / 40))
    assert found.step_seconds == pytest.approx(40 / 3) and found.lost["pictures"] == 0


def test_a_killed_run_counts_what_its_files_say_it_spent(tmp_path, now):
    evaluations = [{"step": step, "seconds": 5.0} for step in (10, 20, 30)]
    steps = [{"step": 20, "seconds": 90.0}, {"step": 35, "seconds": 150.0}]
    for name, lines in (("metrics.jsonl", evaluations), ("log.jsonl", steps)):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    progress = {"train_seconds": 100.0, "cost": {"spent": {"evaluations": 6.0}}}
    for _ in range(2):
        clock = Clock.resumed(tmp_path, 20, progress, now[0])
        progress = clock.progress()
        lost = {what: seconds for what, seconds in clock.spent.items() if seconds}
        assert lost == {"evaluations": 10.0, "restarts": 46.0} and clock.seconds() == 150


@pytest.mark.parametrize("seconds", ['"90"', "null", "1e999"])
def test_a_run_goes_on_where_a_line_of_its_files_is_damaged(tmp_path, now, seconds):
    for name in ("metrics.jsonl", "log.jsonl"):
        lines = ['{"step": 10, "seconds": 150.0}', f'{{"step": 20, "seconds": {seconds}}}']
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    clock = Clock.resumed(tmp_path, 20, {"train_seconds": 100.0}, now[0])
    assert clock.spent["evaluations"] == 150 and clock.seconds() == 250


def test_peaks_are_of_the_kind_that_a_device_says_it_is():
    def of(kind):
        return peak_of(SimpleNamespace(platform="tpu", device_kind=kind))

    assert of("TPU v5 lite") == 197e12 and of("TPU v5") == 459e12
    assert of("NVIDIA H100 80GB HBM3") == 989e12 and of("NVIDIA H100 PCIe") == 756e12
    assert of("NVIDIA H200") == 989e12 and of("NVIDIA H200 NVL") == 835e12
    assert of("NVIDIA A100-SXM4-80GB") == 312e12 and of("NVIDIA L40S") == 362e12
    assert of("NVIDIA GeForce RTX 4090") == 165e12 and of("NVIDIA GeForce RTX 4090 D") is None
    assert of("NVIDIA L40") is None and of("TPU v9") is None


def test_the_peak_of_a_cpu_is_measured_and_shared():
    one = peak_of(jax.devices("cpu")[0])
    assert one and 1e8 < one * jax.local_device_count() < 1e14


@pytest.mark.slow
@pytest.mark.parametrize("phase", [Phase.CONTINUOUS, Phase.ADVERSARIAL])
def test_flops_are_those_of_the_program_wherever_it_runs(tiny_config, phase):
    config = tiny_config.with_fields({"train.batch_size": 16})
    lowered, _ = lower_step(config, make_mesh(devices=jax.devices()[:1]), phase)
    flops = step_flops(config, phase, 1, lowered)
    assert flops and flops > 16 * 1e6
    # As on a GPU, where JAX has no count of a program that is not compiled.
    uncounted: Any = SimpleNamespace(cost_analysis=lambda: None)
    assert step_flops(config, phase, 4, uncounted) == flops / 4
    twice = config.with_fields({"train.batch_size": 32})
    assert step_flops(twice, phase, 1) == pytest.approx(2 * flops, rel=0.15)
    parts = config.with_fields({"train.accumulation": 2})
    counted = step_flops(parts, phase, 1)  # the optimizer in each part
    assert counted and 0.9 * flops < counted < 1.5 * flops
