"""Measures the time of a training step of each candidate over that of the default.

    taskset -c 0 python -m benchmarks.candidate_times [--only=NAME ...]

Steps of a candidate and of the default alternate, four at a time; the medians are compared.
"""

import argparse
import statistics
import time
from typing import Any

import jax

from benchmarks.candidates import ROWS
from benchmarks.screen import CONFIG
from pivq_jax.common.parallel import make_mesh, put_batch
from pivq_jax.config import load_config
from pivq_jax.config.fields import Config
from pivq_jax.data.pipeline import train_batches
from pivq_jax.training.build import dataset_from_config, frozen_from_config, steps_from_config
from pivq_jax.training.objective import Phase

ROUNDS, AT_ONCE = 5, 4


def typed(value: str) -> str | int | float:
    """Returns the number that a field's text gives, or the text."""
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            pass
    return value


def main() -> None:
    """Prints the ratio and both times, in seconds, by candidate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=list(ROWS), metavar="NAME")
    names = parser.parse_args().only
    default, mesh = load_config(CONFIG), make_mesh()
    source = dataset_from_config(default).train

    def build(config: Config) -> list[Any]:
        batch = next(train_batches(source, batch_size=config.train.batch_size, seed=0))
        images = put_batch({"image": batch["image"]}, mesh)["image"]
        frozen, steps = frozen_from_config(config, mesh), steps_from_config(config, mesh)
        state = steps.create()
        run = steps.train.lower(state, images, frozen, phase=Phase.QUANTIZED).compile()
        return [run, state, images, frozen]

    def times(built: list[Any], count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            built[1], metrics = built[0](*built[1:])
            jax.block_until_ready(metrics)
            seconds.append(time.perf_counter() - started)
        return seconds

    base = build(default)
    times(base, 2)
    for name in names:
        fields = {key: value for key, value in ROWS[name].items() if key != "train.steps"}
        row = build(default.with_fields({key: typed(value) for key, value in fields.items()}))
        times(row, 2)
        ours: list[float] = []
        of_base: list[float] = []
        for _ in range(ROUNDS):
            of_base += times(base, AT_ONCE)
            ours += times(row, AT_ONCE)
        ours_median, base_median = statistics.median(ours), statistics.median(of_base)
        print(
            f"{name:<36} {ours_median / base_median:6.3f} {ours_median:.4f} {base_median:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
