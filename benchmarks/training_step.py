"""Measures the time of a training step by solver.

    python -m benchmarks.training_step --workdir=runs/toon_faces [--methods=auto,auction,greedy]

Opens the newest checkpoint of a trained run and times the whole jitted step (median, solvers in
turns), on a CPU on one core. `greedy` takes next to no time, so the difference to it is that of
matching.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import jax

from benchmarks.common import default_device, milliseconds_in_turns, parser_for
from pivq_jax.common.parallel import make_mesh, put_batch
from pivq_jax.config.check import read_config
from pivq_jax.config.fields import Config
from pivq_jax.data.pipeline import train_batches
from pivq_jax.training.build import dataset_from_config, load_networks
from pivq_jax.training.checkpoints import Checkpoints
from pivq_jax.training.objective import phase_at
from pivq_jax.training.steps import Steps


def main() -> None:
    """Prints the table."""
    parser = parser_for(__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("runs/toon_faces"))
    parser.add_argument("--methods", default="auto,shortest_path,auction,sinkhorn,greedy")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    # For other devices all cores may compile.
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
    print(f"{'method':<14} {'step ms':>8}")
    for method, milliseconds in times.items():
        print(f"{method:<14} {milliseconds:8.1f}")


if __name__ == "__main__":
    main()
