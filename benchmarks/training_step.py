"""Measures the time of a training step and the fraction of it that matching takes.

    python -m benchmarks.training_step --workdir=runs/toon_faces [--methods=auto,auction,greedy]

Opens the newest checkpoint of a trained run and times the whole jitted step by solver (median,
solvers in turns). On a CPU, where everything runs on one core, it then profiles three steps and
sums the operations of matching (the distances, the solver and its certificate; where nearest
entries are distinct, no solver runs), and of the other parts for the first solver. On accelerators,
compare the other solvers with `greedy`.
"""

import collections
import gzip
import json
import os
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from benchmarks.common import default_device, milliseconds_in_turns, parser_for
from launch.hlo import Program
from pivq_jax.common.parallel import make_mesh, put_batch
from pivq_jax.config.check import read_config
from pivq_jax.config.fields import Config
from pivq_jax.data.pipeline import train_batches
from pivq_jax.training.build import dataset_from_config, load_networks
from pivq_jax.training.checkpoints import Checkpoints
from pivq_jax.training.objective import phase_at
from pivq_jax.training.steps import Steps

# The names of `pivq_jax.matching.match` and of the distances that it is given.
MATCHING = re.compile(r"(^|[/(])(matching|distances)[/)]")
# Patterns in the scope of an operation; the first match is the part that it belongs to.
PARTS = {
    "matching and distances": MATCHING,
    "Muon's iterations": re.compile("/muon/"),
    "attention": re.compile("_attention/"),
    "MLP": re.compile("/mlp/"),
    "layer norms": re.compile("norm"),
    "the output": re.compile("/(local_)?output/"),
    "other layers": re.compile("/encoder/|/decoder/"),
}


def profile(step: Callable[[], Any], program: str) -> list[tuple[str, float]]:
    """Profiles three steps; returns the scope and the milliseconds a step of each operation.

    Operations are those of the entry computation of the compiled HLO text `program`, where a loop
    is a single one, so nothing is counted twice.
    """
    durations: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            for _ in range(3):
                step()
        (path,) = Path(directory).glob("plugins/profile/*/*.trace.json.gz")
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    for event in events:
        operation = (event.get("args") or {}).get("hlo_op")
        if event.get("ph") == "X" and operation:
            durations[operation] += event["dur"] / 1e3
    compiled = Program(program, devices=1)
    return [(x.scope, durations[x.name] / 3) for x in compiled.computations[compiled.entry]]


def main() -> None:
    """Prints the table."""
    parser = parser_for(__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("runs/toon_faces"))
    parser.add_argument("--methods", default="auto,shortest_path,auction,sinkhorn,greedy")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    # On several cores operations overlap, and for some, such as loops and convolutions, XLA's trace
    # contains only their start. For other devices all cores may compile.
    if default_device()[0] == "cpu" and hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    config, mesh = Config.from_dict(read_config(options.workdir)), make_mesh()
    source, size = dataset_from_config(config).train, config.train.batch_size
    batch = next(train_batches(source, batch_size=size, seed=config.seed, flip=config.data.flip))
    images = put_batch(batch["image"], mesh)
    lpips = load_networks(config, mesh)
    phase = phase_at(config, config.train.steps - 1)

    compiled: dict[str, Any] = {}
    states: dict[str, Any] = {}
    for method in options.methods.split(","):
        steps = Steps(config.with_fields({"quantizer.method": method}), mesh)
        with Checkpoints(options.workdir, read_only=True) as checkpoints:
            states[method], _ = checkpoints.restore(jax.eval_shape(steps.create), mesh)
        compiled[method] = steps.train.lower(states[method], images, lpips, phase=phase).compile()

    def step(method: str) -> None:
        states[method], metrics = compiled[method](states[method], images, lpips)
        jax.block_until_ready(metrics)

    calls = {method: partial(step, method) for method in compiled}
    times = milliseconds_in_turns(calls, options.repeats)

    print(f"{jax.devices()[0].device_kind}, {mesh.size} device(s); {options.workdir}")
    profiles: list[dict[str, float]] = []
    print(f"{'method':<14} {'step ms':>8} {'matching ms':>12} {'of the step':>12}")
    for method, executable in compiled.items():
        step_time = times[method]
        if mesh.devices.flat[0].platform != "cpu":
            print(f"{method:<14} {step_time:8.1f}")
            continue
        operations = profile(partial(step, method), executable.as_text())
        parts: dict[str, float] = collections.defaultdict(float)
        for scope, taken in operations:
            names = (part for part, pattern in PARTS.items() if pattern.search(scope))
            parts[next(names, "losses, optimizer, averages")] += taken
        matching = parts["matching and distances"]
        print(f"{method:<14} {step_time:8.1f} {matching:12.2f} {matching / step_time:12.1%}")
        profiles.append(parts)
    for parts in profiles[:1]:
        print("\na step with the first method by operations, forward and backward")
        total = sum(parts.values())
        for part, taken in sorted(parts.items(), key=lambda item: -item[1]):
            print(f"  {part:<28}{taken:8.1f} ms {taken / total:6.1%}")


if __name__ == "__main__":
    main()
