"""Compares matching with other solvers: `python -m benchmarks.matching [--quick]`.

All methods solve the same batches in one run, in turn; the table contains medians. Solvers of other
packages than JAX get precomputed float64 arrays and run on the host: SciPy in one thread, the batch
calls of lapx, fastlap and lapcpp (`pip install` those to compare with) in as many as there are CPU
cores for this process; `taskset -c 0` leaves one to all. The time to compile is measured apart. On
a machine with a GPU the JAX methods run there.
"""

import importlib.metadata
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from optax.assignment import hungarian_algorithm

from benchmarks.common import milliseconds_in_turns, parser_for
from pivq_jax.common.files import write_json
from pivq_jax.matching import match

SIZES = (
    (16, 64, 128),
    (16, 128, 256),
    (8, 256, 512),
    (8, 256, 1024),
    (8, 512, 512),
    (32, 256, 1024),
)
KINDS = ("gaussian", "noised", "clustered", "low_rank", "integer")
# Packages, with their module, their fastest batch call and its options.
PEERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lapx": ("lap", "lapjvh_batch", {"extend_cost": True}),
    "fastlap": ("fastlap", "lapjvx_batch", {}),
    "lapcpp": ("lapcpp", "lapjv_batch", {"extend_cost": True}),
}
OWN = ("auto", "auction", "sinkhorn", "greedy")
DIMENSIONS = 64


def make_cost(kind: str, batch: int, num_rows: int, num_columns: int, seed: int = 0) -> np.ndarray:
    """Returns squared distances float32 [B, N, K] of latents to one codebook, by kind.

    - gaussian: latents and codebook are normal in 64 dimensions.
    - noised: latents are random codebook entries with noise 0.3, so some prefer the same one.
    - clustered: N / 8 clusters per image with noise 0.15; about 95 % of the latents share their
      nearest entry.
    - low_rank: normal in 2 dimensions.
    - integer: integers below 100 with many ties instead of distances.
    """
    rng = np.random.default_rng(seed)
    if kind == "integer":
        return rng.integers(0, 100, (batch, num_rows, num_columns)).astype(np.float32)
    dimensions = 2 if kind == "low_rank" else DIMENSIONS
    codebook = rng.normal(size=(num_columns, dimensions))
    latents = rng.normal(size=(batch, num_rows, dimensions))
    if kind == "noised":
        pick = rng.integers(0, num_columns, (batch, num_rows))
        latents = codebook[pick] + 0.3 * latents
    if kind == "clustered":
        clusters = max(num_rows // 8, 2)
        centres = rng.normal(size=(batch, clusters, dimensions))
        pick = rng.integers(0, clusters, (batch, num_rows, 1))
        latents = np.take_along_axis(centres, pick, 1) + 0.15 * latents
    lengths = np.square(latents).sum(-1)[..., None] + np.square(codebook).sum(-1)
    return np.maximum(lengths - 2 * latents @ codebook.T, 0).astype(np.float32)


def solve_scipy(cost: np.ndarray) -> np.ndarray:
    """Columns int64 [B, N] by SciPy, one problem after another."""
    return np.stack([scipy.optimize.linear_sum_assignment(problem)[1] for problem in cost])


def installed_peers() -> list[str]:
    """Returns the `PEERS` that are installed."""
    return [name for name, (module, *_) in PEERS.items() if importlib.util.find_spec(module)]


def solve_peer(name: str, cost: np.ndarray, threads: int) -> np.ndarray:
    """Columns [B, N] by one of `PEERS`, for float64 [B, N, K]."""
    module, call, options = PEERS[name]
    solve = getattr(importlib.import_module(module), call)
    # All rows are matched, and in order, so the columns alone say how.
    return np.stack(solve(cost, return_cost=False, n_threads=threads, **options)[1])


def runners(cost: np.ndarray, quick: bool) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """Returns a function for each method, for this batch, and the seconds to compile those in JAX.

    The functions of JAX wait for their results; their seconds include tracing.
    """
    wide, on_device = cost.astype(np.float64), jnp.asarray(cost)
    # optax returns rows and columns, as for N = K one of them is known without solving the problem.
    programs: dict[str, Callable[[jax.Array], Any]] = {
        **{method: partial(match, method=method) for method in OWN[: 1 if quick else None]},
        "optax vmap": jax.vmap(hungarian_algorithm),
    }
    if not quick:
        programs["optax map"] = partial(jax.lax.map, hungarian_algorithm)
    threads = len(os.sched_getaffinity(0))
    calls: dict[str, Callable[[], Any]] = {"scipy": partial(solve_scipy, wide)}
    calls |= {name: partial(solve_peer, name, wide, threads) for name in installed_peers()}
    seconds = {}
    for name, solve in programs.items():
        begin = time.perf_counter()
        program = jax.jit(solve).lower(on_device).compile()
        seconds[name] = time.perf_counter() - begin
        calls[name] = lambda program=program: jax.block_until_ready(program(on_device))  # type: ignore[misc]
    return calls, seconds


def run_cell(size: tuple[int, int, int], kind: str, quick: bool) -> dict[str, Any]:
    """Times, ratios and excesses for one size and kind; prints them in a line.

    Excesses are the largest of the batch, relative to the optimum, or to the mean cost if that is
    larger.
    """
    cost = make_cost(kind, *size)
    calls, compile_seconds = runners(cost, quick)
    results: dict[str, Any] = {}

    def keep(name: str) -> None:
        results[name] = calls[name]()

    milliseconds = milliseconds_in_turns(
        {name: partial(keep, name) for name in calls}, 5 if quick else 7, budget=0.4
    )

    def excess(columns: Any) -> float:
        total = np.take_along_axis(cost.astype(np.float64), np.asarray(columns)[..., None], 2)
        return float(np.max((total[..., 0].sum(-1) - optimum) / reference))

    picked = np.take_along_axis(cost.astype(np.float64), results["scipy"][..., None], 2)
    optimum = picked[..., 0].sum(-1)
    reference = np.maximum(optimum, cost.mean((1, 2)))
    found = {name: results[name].columns for name in OWN if name in results}
    found |= {name: results[name] for name in PEERS if name in results}
    ratios = {name: taken / milliseconds["scipy"] for name, taken in milliseconds.items()}
    shown = "  ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items() if name != "scipy")
    print(
        f"{'x'.join(map(str, size)):>12} {kind:<9} scipy {milliseconds['scipy']:7.2f} ms | {shown}",
        flush=True,
    )
    return {
        "size": size,
        "kind": kind,
        "milliseconds": milliseconds,
        "ratio": ratios,
        "excess": {name: excess(columns) for name, columns in found.items()},
        "compile_seconds": compile_seconds,
    }


def main() -> None:
    """Prints the table and writes it to --output."""
    parser = parser_for(__doc__)
    parser.add_argument("--quick", action="store_true", help="three sizes, exact methods only")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    packages = ["scipy", "optax", "jax", *installed_peers()]
    versions = {name: importlib.metadata.version(name) for name in packages}
    device, threads = jax.devices()[0].device_kind, len(os.sched_getaffinity(0))
    print(f"device {device}, {threads} threads, {versions}")
    sizes = SIZES[:3] if options.quick else SIZES
    rows = [run_cell(size, kind, options.quick) for size in sizes for kind in KINDS]
    ratios = [row["ratio"]["auto"] for row in rows]
    slower = min(row["ratio"]["optax vmap"] / row["ratio"]["auto"] for row in rows)
    mean = statistics.geometric_mean(ratios)
    print(f"\nauto / SciPy: geometric mean {mean:.2f}, worst cell {max(ratios):.2f}")
    print(f"optax vmap / auto: least {slower:.1f}")
    for name in rows[0]["excess"]:
        print(f"{name}: largest excess {max(row['excess'][name] for row in rows):.1e} of the cost")
    for name in rows[0]["compile_seconds"]:
        taken = [row["compile_seconds"][name] for row in rows]
        print(f"{name}: compiled in {statistics.median(taken):.2f} s, at most {max(taken):.2f} s")
    report = {"device": device, "threads": threads, "versions": versions, "rows": rows}
    write_json(options.output / "matching.json", report)


if __name__ == "__main__":
    main()
