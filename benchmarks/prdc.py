"""Compares PRDC with the `prdc` package.

    python -m benchmarks.prdc [--images=10000 --features=2048]

Both compute precision, recall, density and coverage of the same two random sets, each in its own
process. Prints seconds, the increase of peak memory relative to the state after loading the
features and a first run on a few of them, and whether all four values are equal. Our seconds
include compilation for the size of the sets. Requires Linux (`/proc`) and `pip install prdc`.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.common import default_device, parser_for
from tests.memory import peak_memory

NAMES = ("pivq_jax", "prdc")
VALUES = ("precision", "recall", "density", "coverage")


def values_of(name: str, real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, ...]:
    """Computes the four values by one of the two."""
    if name == "pivq_jax":
        from pivq_jax.evaluation.prdc import prdc

        return prdc(real, fake, k)
    from prdc import compute_prdc

    with contextlib.redirect_stdout(io.StringIO()):  # the package prints the numbers of images
        values = compute_prdc(real, fake, nearest_k=k)
    return tuple(float(values[name]) for name in VALUES)


def measure(name: str, images: int, features: int, k: int) -> dict[str, Any]:
    """Measures one of the two in this process."""
    rng = np.random.default_rng(0)
    real, fake = (rng.standard_normal((images, features), np.float32) for _ in range(2))
    values_of(name, real[:1000], fake[:1000], k)
    before = peak_memory(reset=True)
    started = time.perf_counter()
    values = values_of(name, real, fake, k)
    seconds = time.perf_counter() - started
    return {"values": list(values), "seconds": seconds, "MiB": (peak_memory() - before) / 2**20}


def main() -> None:
    """Prints the table."""
    parser = parser_for(__doc__)
    parser.add_argument("--images", type=int, default=10_000, help="number of images in each set")
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--only", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.images, options.features, options.k)))
        return
    sizes = [f"--{name}={getattr(options, name)}" for name in ("images", "features", "k")]
    print(f"{' '.join(sizes)}; JAX on {default_device()[1]}")
    print(f"{'':<10} {'seconds':>9} {'added MiB':>10}   {'  '.join(VALUES)}")
    found = []
    for name in NAMES:
        command = [sys.executable, "-m", "benchmarks.prdc", f"--only={name}", *sizes]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        found.append(run := json.loads(output.splitlines()[-1]))
        values = "  ".join(f"{x:{len(v)}.6f}" for v, x in zip(VALUES, run["values"], strict=True))
        print(f"{name:<10} {run['seconds']:9.2f} {run['MiB']:10.0f}   {values}")
    print(f"values equal: {'yes' if found[0]['values'] == found[1]['values'] else 'NO'}")


if __name__ == "__main__":
    main()
