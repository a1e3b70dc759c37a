"""python -m launch.plan --config=configs/ffhq.py --topology=v5e:16x16

Compiles the training step of a config for a TPU slice with the compiler of the slice, but without
the slice; this only requires pip install "jax[tpu]". Prints whether it fits, what each chip
computes and sends, and an estimate of the step time.

Topologies are written as in Cloud TPU: v5e:4x4, v5e:16x16, v4:2x2x2, v5p:4x4x4, v6e:8x8, ...
Fields of the config are changed as in training, for example --config.mesh.fsdp=4.

  --table   celeba, celeba_hq and ffhq on four slices instead of one config, as in docs/scaling.md
            (takes an hour or more)

Exit status: 0 if it fits, 1 if it does not, 2 for invalid input. Compilation takes minutes and
needs no accelerator. The compiler runs with reduced effort, which does not affect the flops but
changes the traffic and the time by up to a third (docs/scaling.md); set
JAX_EXEC_TIME_OPTIMIZATION_EFFORT=0 to compile with the same effort as in training.
"""

import importlib.util
import itertools
import os
import re
import sys
import time
from functools import partial
from typing import Any, NamedTuple

from absl import app, flags
from tqdm import tqdm

from pivq_jax.common.command_line import exit_code, parse_flags
from pivq_jax.common.errors import InputError
from pivq_jax.config.fields import Config
from pivq_jax.config.loader import define_config_flag, load_config

_CONFIG = define_config_flag()
_TOPOLOGY = flags.DEFINE_string("topology", None, "The slice, such as v5e:16x16.")
_TABLE = flags.DEFINE_bool("table", False, "Print the table of docs/scaling.md.")
_COMPARE = flags.DEFINE_bool(
    "compare", False, "Also compile for one chip and compare its flops, with equal images per chip."
)

TABLE_CONFIGS = ("celeba", "celeba_hq", "ffhq")
TABLE_TOPOLOGIES = ("v5e:4x4", "v5e:16x16", "v4:2x2x2", "v6e:8x8")
GIB = 2**30


class Chip(NamedTuple):
    """Peak performance of a chip, from the Cloud TPU documentation.

    Attributes:
        flops: floating-point operations per second, in bfloat16.
        memory: memory in bytes.
        bandwidth: memory bandwidth in bytes per second.
        links: bandwidth to other chips in bytes per second, in one direction.
    """

    flops: float
    memory: float
    bandwidth: float
    links: float


CHIPS = {
    "v4": Chip(275e12, 32 * GIB, 1.2e12, 300e9),
    "v5e": Chip(197e12, 16 * GIB, 819e9, 200e9),
    "v5p": Chip(459e12, 95 * GIB, 2.765e12, 600e9),
    "v6e": Chip(918e12, 32 * GIB, 1.638e12, 400e9),
}


class DoesNotFit(Exception):
    """The step does not fit into the memory of a chip.

    Args:
        used: bytes that are needed.
        limit: bytes that are available.
    """

    def __init__(self, used: float, limit: float) -> None:
        super().__init__(f"needs {used / GIB:.1f} GiB per chip of {limit / GIB:.1f} GiB")
        self.used, self.limit = used, limit


class Plan(NamedTuple):
    """The compiler's analysis of a training step; all quantities are per chip.

    Attributes:
        topology: name of the slice.
        chips: number of chips.
        batch_size: number of images in the global batch.
        state: bytes of persistent state: parameters, averages, moments.
        memory: bytes at the peak.
        flops: floating-point operations per step.
        traffic: bytes per step to and from memory.
        moved: bytes per step sent by each kind of collective.
        seconds: compilation time.
    """

    topology: str
    chips: int
    batch_size: int
    state: float
    memory: float
    flops: float
    traffic: float
    moved: dict[str, float]
    seconds: float

    @property
    def chip(self) -> Chip:
        """Peak performance of a chip of the slice."""
        return CHIPS[self.topology.split(":")[0]]

    @property
    def times(self) -> dict[str, float]:
        """Seconds per step that each resource is busy at its peak performance."""
        return {
            "compute": self.flops / self.chip.flops,
            "memory": self.traffic / self.chip.bandwidth,
            "links": sum(self.moved.values()) / self.chip.links,
        }

    @property
    def step_seconds(self) -> float:
        """Roofline: the slower of compute and memory, plus the links, without overlap."""
        times = self.times
        return max(times["compute"], times["memory"]) + times["links"]


def devices_of(topology: str) -> list[Any]:
    """Returns the devices of a slice, which need not exist.

    Args:
        topology: name of the slice, such as v5e:4x4.

    Raises:
        InputError: if jax[tpu] is not installed or there is no such slice.
    """
    from jax.experimental import topologies

    version = topology.split(":")[0]
    if version not in CHIPS or ":" not in topology:
        raise InputError(
            f"--topology={topology} is unknown: give one of {', '.join(CHIPS)} and its shape, such"
            " as v5e:4x4"
        )
    if importlib.util.find_spec("libtpu") is None:
        raise InputError("the TPU's compiler is not installed: pip install 'jax[tpu]'")
    # The two cores of a v4 or v5p chip are one device, as on the real slice.
    options = {"chip_config_name": "megacore"} if version in ("v4", "v5p") else {}
    try:
        slice_ = topologies.get_topology_desc(topology, platform="tpu", **options)
        return list(slice_.devices)
    except Exception as error:  # runtime errors of several types
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--topology={topology} is not available ({reason}): use a shape that Cloud TPU offers,"
            " such as v5e:4x4"
        ) from error


def lower(config: Config, devices: list[Any]) -> tuple[Any, float]:
    """Lowers the training step of the last phase for these devices.

    Args:
        config: the config.
        devices: the devices, which need not exist.

    Returns:
        The lowered step, and the bytes of state per chip.

    Raises:
        InputError: if the config does not fit the devices.
    """
    import jax
    import jax.numpy as jnp

    from pivq_jax.common.parallel import make_mesh, over_batch, replicated, shardings_of
    from pivq_jax.config.check import check_devices
    from pivq_jax.losses.perceptual_weights import weight_shapes
    from pivq_jax.training.build import phase_at, steps_from_config

    check_devices(config, len(devices))
    mesh = make_mesh(config.mesh.fsdp, devices)
    steps = steps_from_config(config, mesh)

    def placed(tree: Any, shardings: Any) -> Any:
        return jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, shardings
        )

    state = jax.eval_shape(steps.create)
    state = placed(state, shardings_of(state, mesh))
    size = config.data.image_size
    images = jax.ShapeDtypeStruct(
        (config.train.batch_size, size, size, 3), jnp.uint8, sharding=over_batch(mesh)
    )
    frozen = None
    if config.loss.perceptual:
        shapes = weight_shapes(config.loss.perceptual_network)
        frozen = placed(shapes, jax.tree.map(lambda _: replicated(mesh), shapes))
    held = sum(
        x.dtype.itemsize * _size(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(state)
    )
    phase = phase_at(config, config.train.steps - 1)
    return steps.train.lower(state, images, frozen, phase), held


def make_plan(config: Config, topology: str, devices: list[Any] | None = None) -> Plan:
    """Compiles the training step for a slice, or for some of its devices.

    Args:
        config: the config.
        topology: name of the slice.
        devices: the devices; defaults to all devices of the slice.

    Returns:
        The `Plan`.

    Raises:
        InputError: if the config does not fit the devices.
        DoesNotFit: if the step does not fit into the memory of a chip.
        AssertionError: if there is communication inside matching.
    """
    from launch.hlo import Program

    devices = devices_of(topology) if devices is None else devices
    lowered, held = lower(config, devices)
    started = time.perf_counter()
    compiled = compile_step(lowered)
    seconds = time.perf_counter() - started
    program = Program(compiled.as_text(), len(devices))
    inside = program.collectives_inside_matching()
    assert not inside, f"communication inside matching: {inside}"
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    return Plan(
        topology=topology,
        chips=len(devices),
        batch_size=config.train.batch_size,
        state=held,
        memory=memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes,
        # The compiler counts the body of a loop once, including that over the parts of a batch.
        flops=cost["flops"] * config.train.accumulation,
        traffic=cost["bytes accessed"] * config.train.accumulation,
        moved=program.moved_by_kind(),
        seconds=seconds,
    )


def compile_step(lowered: Any) -> Any:
    """Compiles a lowered step.

    Raises:
        DoesNotFit: if it does not fit into the memory of a chip.
    """
    try:
        return lowered.compile()
    except Exception as error:  # runtime errors of several types
        match = re.search(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm", str(error))
        if not match:
            raise
        unit = {name: 1024**power for power, name in enumerate("KMGT", start=1)}
        used, limit = (float(match[i]) * unit[match[i + 1]] for i in (1, 3))
        raise DoesNotFit(used, limit) from error


def shares_out(config: Config, chips: int, factor: int) -> bool:
    """Whether the batch can be split over the chips in `factor` times as many parts."""
    from pivq_jax.config.check import check_devices

    changed = config.with_fields({"train.accumulation": config.train.accumulation * factor})
    try:
        check_devices(changed, chips)
    except InputError:
        return False
    return config.train.batch_size % changed.train.accumulation == 0


def knobs(config: Config, chips: int, state: float, excess: float) -> list[str]:
    """Suggests changes for a config that exceeds the memory of a chip.

    Args:
        config: the config.
        chips: number of chips.
        state: bytes of state per chip.
        excess: bytes that are missing per chip.

    Returns:
        One line per suggestion.
    """
    advice = []
    fsdp = config.mesh.fsdp
    if fsdp < chips:
        saved = state * (1 - fsdp / chips)
        advice.append(
            f"--config.mesh.fsdp={chips}: splits the state over all chips, saving up to"
            f" {saved / GIB:.1f} GiB of its {state / GIB:.1f} GiB"
            + (" (not enough alone)" if saved < excess else "")
        )
    if not config.model.remat:
        advice.append(
            "--config.model.remat=True: keeps only the inputs of each block, for a third more flops"
        )
    images = config.train.batch_size // config.train.accumulation // chips
    factor = next((n for n in range(2, images + 1) if shares_out(config, chips, n)), None)
    if factor:
        advice.append(
            f"--config.train.accumulation={config.train.accumulation * factor}:"
            f" {images // factor} images per chip at a time instead of {images}, the same step"
        )
        advice.append(
            f"--config.train.batch_size={config.train.batch_size // factor}: fewer images per step"
        )
    advice.append("a slice with more chips, or chips with more memory (v4 and v6e: 32 GiB)")
    return advice


def describe(plan: Plan, config: Config) -> str:
    """Formats a plan as text."""
    times, chip = plan.times, plan.chip
    lines = [
        f"{config.name} on {plan.topology}: {plan.chips} chips, mesh"
        f" {plan.chips // config.mesh.fsdp}x{config.mesh.fsdp}, batch of {plan.batch_size} in"
        f" {config.train.accumulation} part(s); compiled in {plan.seconds:.0f} s",
        "per chip:",
        f"  memory       {plan.memory / GIB:8.2f} GiB of {chip.memory / GIB:.0f}, of which state"
        f" {plan.state / GIB:.2f}",
        f"  flops        {plan.flops / 1e12:8.2f} TFLOP per step",
        f"  HBM traffic  {plan.traffic / GIB:8.2f} GiB per step",
        *(
            f"  {kind:<20} {sent / 2**20:10.1f} MiB sent per step"
            for kind, sent in sorted(plan.moved.items())
        ),
        "estimate (roofline: every resource at its peak, loops of matching counted once):",
        "  " + ", ".join(f"{name} {1e3 * seconds:.1f} ms" for name, seconds in times.items()),
        f"  step {1e3 * plan.step_seconds:.1f} ms at best,"
        f" {plan.batch_size / plan.step_seconds:,.0f} images per second",
    ]
    return "\n".join(lines)


def table() -> None:
    """Prints the table of docs/scaling.md, line by line."""
    titles = (
        *("config, slice", "batch", "fsdp", "GiB a chip: state / peak / of", "TFLOP a chip"),
        *("MiB sent a chip", "step at best, ms", "images/s at best", "flops against one chip"),
    )
    print(f"| {' | '.join(titles)} |\n" + "|" + " --- |" * len(titles), flush=True)
    rows = list(itertools.product(TABLE_CONFIGS, TABLE_TOPOLOGIES))
    for name, topology in tqdm(rows, unit="row"):
        tqdm.write(_row(load_config(name), topology))
        sys.stdout.flush()  # a row takes minutes and should not be lost on interruption


def _row(config: Config, topology: str) -> str:
    devices = devices_of(topology)
    config = config.with_fields(
        {
            "mesh.fsdp": min(config.mesh.fsdp, len(devices)),
            "train.batch_size": max(config.train.batch_size, len(devices)),
        }
    )
    cells = [f"{config.name}, {topology}", f"{config.train.batch_size}", f"{config.mesh.fsdp}"]
    try:
        plan = make_plan(config, topology, devices)
    except DoesNotFit as error:
        return f"| {' | '.join(cells)} | {error} |"
    memory = (plan.state, plan.memory, plan.chip.memory)
    return "| " + " | ".join(
        [
            *cells,
            " / ".join(f"{value / GIB:.2f}" for value in memory),
            f"{plan.flops / 1e12:.2f}",
            f"{sum(plan.moved.values()) / 2**20:,.0f}",
            f"{1e3 * plan.step_seconds:.1f}",
            f"{plan.batch_size / plan.step_seconds:,.0f}",
            f"{flops_against_one_chip(config, plan, devices)} |",
        ]
    )


def flops_against_one_chip(config: Config, plan: Plan, devices: list[Any]) -> str:
    """Flops per chip relative to those of a step on a single chip with the same number of images.

    The single chip holds the whole state, for which its memory may be too small; the text then says
    so.
    """
    batch_size = config.train.batch_size // len(devices)
    alone = config.with_fields({"mesh.fsdp": 1, "train.batch_size": batch_size})
    try:
        return f"{plan.flops / make_plan(alone, plan.topology, devices[:1]).flops:.3f}"
    except DoesNotFit:
        return "one chip cannot hold it"


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def main(arguments: list[str]) -> int:
    """Plans one config, or prints the table."""
    return exit_code(partial(_run, arguments))


def _run(arguments: list[str]) -> int:
    if len(arguments) > 1:
        raise InputError(f"unexpected argument {arguments[1]!r}: flags look like --name=value")
    if _TABLE.value:
        table()
        return 0
    if _CONFIG.value is None or not _TOPOLOGY.value:
        raise InputError("give --config and --topology; see --help")
    return _plan_one(Config.from_dict(_CONFIG.value.to_dict()), _TOPOLOGY.value)


def _plan_one(config: Config, topology: str) -> int:
    from pivq_jax.config.check import check_config

    check_config(config, training=False)
    devices = devices_of(topology)
    try:
        plan = make_plan(config, topology, devices)
    except DoesNotFit as error:
        _, state = lower(config, devices)
        excess = error.used - error.limit
        print(f"{config.name} does not fit {topology}: {error}, {excess / GIB:.1f} GiB too much.")
        print("Possible changes:")
        print("\n".join(f"  {knob}" for knob in knobs(config, len(devices), state, excess)))
        return 1
    print(describe(plan, config))
    if _COMPARE.value:
        ratio = flops_against_one_chip(config, plan, devices)
        print(f"flops per chip, relative to one chip with the same number of images: {ratio}")
    return 0


if __name__ == "__main__":
    # The compiler runs on this CPU, without asking a metadata server for a TPU.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ.setdefault("JAX_EXEC_TIME_OPTIMIZATION_EFFORT", "-1")  # takes a seventh of the time
    app.run(main, flags_parser=partial(parse_flags, _CONFIG, sys.modules[__name__]))
