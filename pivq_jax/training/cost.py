"""Measures what a run costs: the FLOPs of its steps, the device's peak, where the time goes."""

import contextlib
import dataclasses
import time
import timeit
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from pivq_jax.common import parallel
from pivq_jax.common.cost import LOSSES, PEAKS, Cost
from pivq_jax.common.json_lines import LOG, METRICS, read_lines
from pivq_jax.config.fields import Config
from pivq_jax.losses.lpips_weights import weight_shapes
from pivq_jax.training.build import networks_of
from pivq_jax.training.objective import Phase
from pivq_jax.training.steps import Steps


def peak_of(device: jax.Device) -> float | None:
    """Returns the peak in FLOP/s of a device, None if its kind is not listed.

    A CPU's is measured by float32 matrix products, and divided equally among its devices.
    """
    if device.platform == "cpu":
        x = jnp.ones((1024, 1024), jnp.float32)
        product = jax.jit(jnp.matmul).lower(x, x).compile()
        times = timeit.repeat(lambda: product(x, x).block_until_ready(), number=1, repeat=8)
        return 2 * 1024**3 / min(times) / jax.local_device_count()
    # Of whole words, as an L40 is no L4; a GeForce of more words, such as Laptop, has another chip.
    kind = device.device_kind
    names = [name for name in PEAKS if f"{kind} ".startswith((f"{name} ", f"{name}-"))]
    names = [name for name in names if kind == name or "GeForce" not in name]
    return PEAKS[max(names, key=len)] if names else None


def lower_step(config: Config, mesh: Mesh, phase: Phase) -> tuple[jax.stages.Lowered, Any]:
    """Lowers the training step for devices that need not exist; also returns its abstract state."""
    steps = Steps(config, mesh)
    state = jax.eval_shape(steps.create)
    places = parallel.shardings_of(state, mesh)
    state = jax.tree.map(lambda x, place: x.update(sharding=place), state, places)
    shape = (config.train.batch_size, config.data.image_size, config.data.image_size, 3)
    images = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=parallel.over_batch(mesh))
    shapes = {name: weight_shapes(name) for name in networks_of(config)}
    whole = parallel.replicated(mesh)
    networks = jax.tree.map(lambda x: x.update(sharding=whole), shapes)
    return steps.train.lower(state, images, networks, phase), state


def step_flops(
    config: Config, phase: Phase, devices: int, lowered: jax.stages.Lowered | None = None
) -> float | None:
    """Returns XLA's count of the FLOPs of a step for each of `devices`, None if it has no count.

    It is counted before optimization, so the device does not matter. A loop's body counts once, so
    the count is multiplied by the parts of a batch, although Muon updates once for all of them.
    """
    count = lowered.cost_analysis() if lowered else None
    # For GPU and TPU, JAX has counts of compiled programs only, without what GPUs leave to cuBLAS.
    if count is None:
        try:
            one = parallel.make_mesh(devices=jax.devices("cpu")[:1])
        except RuntimeError:  # $JAX_PLATFORMS leaves it out
            return None
        count = lower_step(config, one, phase)[0].cost_analysis() or {}
    return count["flops"] * config.train.accumulation / devices if "flops" in count else None


@dataclasses.dataclass
class Clock:
    """The time spent on a run and what it was lost to, which resumed runs add to."""

    train_seconds: float = 0.0  # before this process
    spent: dict[str, float] = dataclasses.field(default_factory=dict)  # lost, by keys of LOSSES
    steps: int = 0  # that were timed: all but those that compile
    at_peak: float = 0.0  # seconds that they would have taken at the device's peak
    last: float = 0.0  # of the newest evaluation of this process
    peak: float | None = None  # FLOP/s of a device; the loop sets this and `flops`
    flops: float | None = None  # of a step of the newest phase, for each device
    started: float = dataclasses.field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.spent = {what: self.spent.get(what, 0.0) for what in LOSSES}

    def seconds(self) -> float:
        """The seconds spent on the run until now."""
        return self.train_seconds + time.perf_counter() - self.started

    def allows(self, share: float) -> bool:
        """Whether evaluations remain within a share if one more takes as long as the last.

        The first one of a run is always made. All processes must call this, and all get one answer.
        """
        spent = self.spent["evaluations"] + self.last
        return not parallel.max_over_processes(spent > share * (self.seconds() + self.last))

    @classmethod
    def resumed(cls, workdir: Path, step: int, progress: dict[str, Any], started: float) -> Self:
        """The clock of a checkpoint, with what a killed process spent after it, or a new one.

        The files of the run say that: evaluations up to `step` are not repeated, later steps are.
        """
        clock = cls(progress.get("train_seconds", 0.0), **progress.get("cost", {}), started=started)
        evaluated = sum(line.get("seconds", 0.0) for line in read_lines(workdir / METRICS, step))
        if (missing := evaluated - clock.spent["evaluations"]) > 0:
            clock.train_seconds += missing
            clock.spent["evaluations"] += missing
        logged = read_lines(workdir / LOG) or [{}]
        if (repeated := logged[-1].get("seconds", 0.0) - clock.train_seconds) > 0:
            clock.train_seconds += repeated
            clock.spent["restarts"] += repeated
        return clock

    def count_opening(self) -> str:
        """Counts the time until now as lost; returns to which key of LOSSES."""
        opening = "restarts" if self.train_seconds else "start"
        self.spent[opening] += self.seconds() - self.train_seconds
        return opening

    @contextlib.contextmanager
    def on(self, what: str, pending: Any = None) -> Iterator[None]:
        """Waits for `pending`, arrays of the last step; what is then done counts as lost."""
        jax.block_until_ready(pending)
        started = time.perf_counter()
        yield
        self.spent[what] += time.perf_counter() - started

    @contextlib.contextmanager
    def on_evaluation(self, pending: Any = None) -> Iterator[None]:
        """As `on("evaluations")`, but compilation counts as start: the next does not need it."""
        before, compiling = self.spent["evaluations"], list[float]()

        def note(event: str, duration_secs: float, **_: str | int) -> None:
            if event.startswith("/jax/core/compile/backend"):
                compiling.append(duration_secs)

        jax.monitoring.register_event_duration_secs_listener(note)
        try:
            with self.on("evaluations", pending):
                yield
        finally:
            jax.monitoring.unregister_event_duration_listener(note)
        compilation = min(sum(compiling), self.spent["evaluations"] - before)
        self.spent["start"] += compilation
        self.spent["evaluations"] -= compilation
        self.last = self.spent["evaluations"] - before

    def busy(self) -> float:
        """The seconds in timed steps, and of waiting for images: accelerators compute meanwhile."""
        return self.seconds() - sum(self.spent.values()) + self.spent["input"]

    def step_at_peak(self) -> float | None:
        """The seconds that a step of the newest phase takes at the device's peak, if known."""
        return self.flops / self.peak if self.flops and self.peak else None

    def count_step(self) -> None:
        """Counts a step that did not compile."""
        self.steps += 1
        self.at_peak += self.step_at_peak() or 0.0

    def figures(self) -> dict[str, float]:
        """The seconds until now, those lost by what they were lost to, and the share in steps."""
        total = self.seconds()
        lost = {f"seconds_{what}": seconds for what, seconds in self.spent.items()}
        return {"seconds": total, **lost, "goodput": 1 - sum(lost.values()) / total}

    def progress(self) -> dict[str, Any]:
        """The part of the clock that is saved in a checkpoint."""
        kept = {"spent": dict(self.spent), "steps": self.steps, "at_peak": self.at_peak}
        return {"train_seconds": self.seconds(), "cost": kept}

    def cost(self, steps: int, batch_size: int, mesh: Mesh) -> Cost:
        """What so many steps of the run have cost."""
        total, busy = self.seconds(), self.busy()
        return Cost(
            devices=f"{mesh.size} {mesh.devices.flat[0].device_kind}",
            peak=self.peak,
            flops=self.flops,
            share=self.at_peak / busy if self.step_at_peak() else None,
            step_seconds=busy / max(self.steps, 1),
            batch_size=batch_size,
            steps=steps,
            lost=self.spent,
            total=total,
        )
