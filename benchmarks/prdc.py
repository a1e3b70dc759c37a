"""Compares PRDC with the `prdc` package.

    python -m benchmarks.prdc [--images=10000 --features=2048]

Both compute precision, recall, density and coverage of the same two random sets, each in its own
process. Prints seconds, the increase of peak memory relative to the state after loading the
features and a first run on a few of them (imports, threads), the ratios, and whether all four
values are equal. On a GPU, whose own memory is not counted, there is no ratio of memory. Our
seconds include compilation for the size of the sets. The two alternate; the table contains medians.
Requires Linux (`/proc`) and `pip install prdc`.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import default_device
from benchmarks.common import parser_for
from tests.memory import peak_memory

NAMES = ("pivq_jax", "prdc")
VALUES = ("precision", "recall", "density", "coverage")


def method(name: str) -> Callable[[np.ndarray, np.ndarray, int], tuple[float, ...]]:
    """Returns the function that computes the four values."""
    if name == "pivq_jax":
        from pivq_jax.evaluation.prdc import prdc

        return prdc

    from prdc import compute_prdc

    def package(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, ...]:
        with contextlib.redirect_stdout(io.StringIO()):  # the package prints the numbers of images
            values = compute_prdc(real, fake, nearest_k=k)
        return tuple(float(values[name]) for name in VALUES)

    return package


def measure(name: str, images: int, features: int, k: int) -> dict[str, Any]:
    """Measures one of the two in this process."""
    rng = np.random.default_rng(0)
    real = rng.standard_normal((images, features), np.float32)
    fake = rng.standard_normal((images, features), np.float32)
    compute = method(name)
    few = min(images, 1000)
    compute(real[:few], fake[:few], k)
    before = peak_memory(reset=True)
    started = time.perf_counter()
    values = compute(real, fake, k)
    seconds = time.perf_counter() - started
    return {"values": list(values), "seconds": seconds, "MiB": (peak_memory() - before) / 2**20}


def main() -> None:
    """Prints the table."""
    parser = parser_for(__doc__)
    parser.add_argument("--images", type=int, default=10_000, help="number of images in each set")
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.images, options.features, options.k)))
        return

    sizes = [f"--{name}={getattr(options, name)}" for name in ("images", "features", "k")]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    for _ in range(options.repeats):
        for name in NAMES:
            command = [sys.executable, "-m", "benchmarks.prdc", f"--only={name}", *sizes]
            finished = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            runs[name].append(json.loads(finished.stdout.splitlines()[-1]))

    kind, device = default_device()
    print(
        f"{options.images} real x {options.images} fake images x {options.features} features, "
        f"k = {options.k}; {os.cpu_count()} CPUs ({platform.machine()}), JAX on {device}"
    )
    print(f"{'':<10} {'seconds':>9} {'added MiB':>10}   " + "  ".join(VALUES))
    median = {
        name: [statistics.median(run[field] for run in runs[name]) for field in ("seconds", "MiB")]
        for name in NAMES
    }
    for name in NAMES:
        seconds, added = median[name]
        values = "  ".join(
            f"{value:{len(v)}.6f}" for v, value in zip(VALUES, runs[name][0]["values"])
        )
        print(f"{name:<10} {seconds:9.2f} {added:10.0f}   {values}")
    (own, own_memory), (package, package_memory) = (median[name] for name in NAMES)
    equal = all(a["values"] == b["values"] for a, b in zip(runs["pivq_jax"], runs["prdc"]))
    memory_ratio = f", {own_memory / package_memory:.2f} of the memory" if kind == "cpu" else ""
    print(
        f"{package / own:.1f} times as fast{memory_ratio}; values equal: {'yes' if equal else 'NO'}"
    )


if __name__ == "__main__":
    main()
