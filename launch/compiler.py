"""Compiles the training step for a TPU slice with the compiler of the slice, but without the slice.

Only requires pip install "jax[tpu]".
"""

import importlib.util
import math
import re
import time
from typing import Any, NamedTuple

import numpy as np

from launch.hlo import Program
from pivq_jax.common.cost import PEAKS
from pivq_jax.common.errors import InputError
from pivq_jax.config.fields import Config

# To be set before jax is imported.
ENVIRONMENT = {
    # The compiler runs on this CPU, without asking a metadata server for a TPU.
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    # What that server would say of this machine. Without it libtpu prints errors, as if compiling
    # had failed; the slice that is compiled for is not affected.
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_HOST_BOUNDS": "1,1,1",
}
GIB = 2**30


class Chip(NamedTuple):
    """Peak performance of a chip, from the Cloud TPU documentation."""

    flops: float  # floating-point operations per second, in bfloat16
    memory: float  # bytes
    bandwidth: float  # of the memory, in bytes per second
    links: float  # to other chips, in bytes per second in one direction


CHIPS = {
    "v4": Chip(PEAKS["TPU v4"], 32 * GIB, 1.2e12, 300e9),
    "v5e": Chip(PEAKS["TPU v5 lite"], 16 * GIB, 819e9, 200e9),
    "v5p": Chip(PEAKS["TPU v5"], 95 * GIB, 2.765e12, 600e9),
    "v6e": Chip(PEAKS["TPU v6 lite"], 32 * GIB, 1.638e12, 400e9),
}


class DoesNotFit(Exception):
    """The step needs `used` bytes of a chip that has `limit`; its state takes `state` of them."""

    state = 0.0

    def __init__(self, used: float, limit: float) -> None:
        super().__init__(f"needs {used / GIB:.1f} GiB per chip of {limit / GIB:.1f} GiB")
        self.used, self.limit = used, limit


class Plan(NamedTuple):
    """The compiler's analysis of a training step; all quantities are per chip."""

    topology: str
    chips: int
    state: float  # bytes that stay from step to step: parameters, averages, moments
    memory: float  # bytes at the peak
    flops: float  # of a step
    traffic: float  # bytes to and from memory in a step
    moved: dict[str, float]  # bytes sent in a step by each kind of collective
    seconds: float  # compilation time

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
    """Returns the devices of a slice such as v5e:4x4, which need not exist."""
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
    """Lowers the training step of the last phase for these devices, and counts the bytes of state
    per chip. Raises InputError if the config does not fit the devices.
    """
    import jax

    from pivq_jax.common.parallel import make_mesh
    from pivq_jax.config.check import check_devices
    from pivq_jax.training.cost import lower_step

    check_devices(config, len(devices))
    lowered, state = lower_step(config, make_mesh(config.mesh.fsdp, devices), last_phase(config))
    held = sum(
        x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape))
        for x in jax.tree.leaves(state)
    )
    return lowered, held


def last_phase(config: Config) -> Any:
    """Returns the phase of the last step, in which a run spends most of its time."""
    from pivq_jax.training.objective import phase_at

    return phase_at(config, config.train.steps - 1)


def make_plan(config: Config, topology: str, devices: list[Any]) -> Plan:
    """Compiles the training step for some devices of a slice.

    Raises InputError if the config does not fit the devices, DoesNotFit if the step does not fit
    into the memory of a chip, and AssertionError if there is communication inside matching.
    """
    lowered, held = lower(config, devices)
    started = time.perf_counter()
    try:
        compiled = compile_step(lowered)
    except DoesNotFit as error:
        error.state = held
        raise
    seconds = time.perf_counter() - started
    program = Program(compiled.as_text(), len(devices))
    inside = program.collectives_inside_matching()
    assert not inside, f"communication inside matching: {inside}"
    memory = compiled.memory_analysis()
    cost = flops_and_traffic(compiled)
    # The compiler counts the body of a loop once, including that over the parts of a batch.
    flops, traffic = cost * config.train.accumulation
    return Plan(
        topology=topology,
        chips=len(devices),
        state=held,
        memory=memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes,
        flops=float(flops),
        traffic=float(traffic),
        moved=program.moved_by_kind(),
        seconds=seconds,
    )


def flops_and_traffic(compiled: Any) -> np.ndarray:
    """Returns the flops of a compiled step by the compiler's count, and its bytes by ours.

    The compiler counts whole arrays where slices of them are fetched ahead, and what never leaves
    the memory of the cores: several times the traffic (docs/trials.md).
    """
    traffic = Program(compiled.as_text(), devices=1).traffic()
    return np.array([compiled.cost_analysis()["flops"], traffic])


def compile_step(lowered: Any) -> Any:
    """Compiles a lowered step; raises DoesNotFit if the memory of a chip is too small for it."""
    try:
        return lowered.compile()
    except Exception as error:  # runtime errors of several types
        match = re.search(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm", str(error))
        if not match:
            raise
        unit = {name: 1024**power for power, name in enumerate("KMGT", start=1)}
        used, limit = (float(match[i]) * unit[match[i + 1]] for i in (1, 3))
        raise DoesNotFit(used, limit) from error
