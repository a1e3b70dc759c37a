"""Compares matching with other solvers: `python -m benchmarks.matching [--quick] [--tpu=v5e:2x2]`.

All methods solve the same batches in one run, in turn; the table contains medians. Solvers of other
packages than JAX get precomputed float64 arrays and run on the host: SciPy in one thread, the batch
calls of lapx, fastlap and lapcpp (`pip install` those to compare with) in as many as there are CPU
cores for this process; `taskset -c 0` leaves one to all. The time to compile is measured apart.

`--tpu` adds estimates of the TPU compiler, which need libtpu (`pip install "jax[tpu]"`) but no TPU.
On a machine with a GPU the JAX methods run there; the peer to compare with would be the CUDA build
of torch-linear-assignment, which this command does not run.
"""

import importlib.metadata
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

from benchmarks import matching_tpu
from benchmarks.common import has, parser_for
from pivq_jax.common.files import write_json
from pivq_jax.matching import auction, certificate, match

SIZES = (
    (16, 64, 128),
    (16, 128, 256),
    (8, 256, 512),
    (8, 256, 1024),
    (8, 512, 512),
    (32, 256, 1024),
)
KINDS = ("gaussian", "noised", "clustered", "low_rank", "integer")
PEERS = {"lapx": "lap", "fastlap": "fastlap", "lapcpp": "lapcpp"}  # packages and their modules
OWN = ("auto", "auction", "sinkhorn", "greedy")
DIMENSIONS = 64
LEAST_REPEATS = 3


def host_threads() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


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


def peers(cost: np.ndarray, threads: int) -> dict[str, Callable[[], np.ndarray]]:
    """Returns the batch calls of the installed `PEERS`, for float64 [B, N, K]: columns [B, N]."""
    solvers: dict[str, Callable[..., Any]] = {}
    if has("lap"):
        import lap

        solvers["lapx"] = partial(lap.lapjvh_batch, extend_cost=True)  # its fastest one
    if has("fastlap"):
        import fastlap

        solvers["fastlap"] = fastlap.lapjvx_batch
    if has("lapcpp"):
        import lapcpp

        solvers["lapcpp"] = partial(lapcpp.lapjv_batch, extend_cost=True)

    def columns_by(solve: Callable[..., Any]) -> Callable[[], np.ndarray]:
        # All rows are matched, and in order, so the columns alone say how.
        return lambda: np.stack(solve(cost, return_cost=False, n_threads=threads)[1])

    return {name: columns_by(solve) for name, solve in solvers.items()}


def compiled(solve: Callable[[jax.Array], Any], cost: jax.Array) -> tuple[Callable[[], Any], float]:
    """Returns a function that runs compiled code and waits for it, and the seconds to compile it.

    These include tracing.
    """
    begin = time.perf_counter()
    program = jax.jit(solve).lower(cost).compile()
    return lambda: jax.block_until_ready(program(cost)), time.perf_counter() - begin


def runners(cost: np.ndarray, quick: bool) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """Returns a function for each method available, for this batch, and seconds to compile them."""
    wide, on_device = cost.astype(np.float64), jnp.asarray(cost)
    programs = {
        method: compiled(partial(match, method=method), on_device)
        for method in OWN[: 1 if quick else None]
    }
    # optax returns rows and columns, as for N = K one of them is known without solving the problem.
    programs["optax vmap"] = compiled(jax.vmap(hungarian_algorithm), on_device)
    if not quick:
        one_by_one = partial(jax.lax.map, hungarian_algorithm)
        programs["optax map"] = compiled(one_by_one, on_device)
    calls = {"scipy": lambda: solve_scipy(wide), **peers(wide, host_threads())}
    calls |= {name: call for name, (call, _) in programs.items()}
    return calls, {name: seconds for name, (_, seconds) in programs.items()}


def time_in_turns(
    calls: dict[str, Callable[[], Any]], repeats: int, budget: float
) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds and the last result of each call; slow calls are repeated less often.

    Each call runs once before it is timed, then at least `LEAST_REPEATS` times.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    results = {name: call() for name, call in calls.items()}
    for _ in range(repeats):
        for name, call in calls.items():
            if len(seconds[name]) >= LEAST_REPEATS and sum(seconds[name]) > budget:
                continue
            begin = time.perf_counter()
            results[name] = call()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(taken) for name, taken in seconds.items()}, results


@jax.jit
def count_steps(cost: jax.Array) -> auction.StepCounts:
    """Number of sequential steps of `auction` for a batch."""
    return auction.solve(certificate.prepare(cost)[0])[2]


def run_cell(size: tuple[int, int, int], kind: str, quick: bool) -> dict[str, Any]:
    """Times, ratios, excesses and steps for one size and kind; prints them in a line.

    Excesses and certified gaps are the largest of the batch, relative to the optimum, or to the
    mean cost if that is larger.
    """
    cost = make_cost(kind, *size)
    calls, compile_seconds = runners(cost, quick)
    seconds, results = time_in_turns(calls, 5 if quick else 7, budget=0.4)

    def total(columns: Any) -> np.ndarray:
        picked = np.asarray(columns)[..., None]
        return np.take_along_axis(cost.astype(np.float64), picked, 2)[..., 0].sum(-1)

    optimum = total(results["scipy"])
    reference = np.maximum(optimum, cost.mean((1, 2)))
    own = [name for name in OWN if name in results]
    found = {name: results[name].columns for name in own}
    found |= {name: results[name] for name in PEERS if name in results}
    row: dict[str, Any] = {
        "size": size,
        "kind": kind,
        "milliseconds": {name: 1e3 * taken for name, taken in seconds.items()},
        "ratio": {name: taken / seconds["scipy"] for name, taken in seconds.items()},
        "excess": {
            name: float(np.max((total(columns) - optimum) / reference))
            for name, columns in found.items()
        },
        "gap": {name: float(np.max(np.asarray(results[name].gap) / reference)) for name in own},
        "compile_seconds": compile_seconds,
        "steps": {name: int(n) for name, n in count_steps(jnp.asarray(cost))._asdict().items()},
    }
    ratios = [f"{name} {ratio:.2f}" for name, ratio in row["ratio"].items() if name != "scipy"]
    print(
        f"{'x'.join(map(str, size)):>12} {kind:<9} scipy {row['milliseconds']['scipy']:7.2f} ms | "
        f"{'  '.join(ratios)} | auction steps {' + '.join(map(str, row['steps'].values()))}",
        flush=True,
    )
    return row


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Prints one line per criterion and returns the values."""
    worst = max(rows, key=lambda row: row["ratio"]["auto"])
    mean = statistics.geometric_mean(row["ratio"]["auto"] for row in rows)
    slower = min(row["ratio"]["optax vmap"] / row["ratio"]["auto"] for row in rows)
    cell = f"{worst['kind']} {'x'.join(map(str, worst['size']))}"
    print(f"\nauto / SciPy: geometric mean {mean:.2f} (to show: at most 0.7)")
    print(f"auto / SciPy: worst cell {worst['ratio']['auto']:.2f} (at most 1.0), {cell}")
    print(f"optax vmap / auto: least {slower:.1f} (at least 4)")
    for name in rows[0]["excess"]:
        over = max(row["excess"][name] for row in rows)
        bounds = [row["gap"][name] for row in rows if name in row["gap"]]
        certified = f", certified {max(bounds):.1e}" if bounds else ""
        print(f"{name}: largest excess {over:.1e} of the cost{certified}")
    for name in rows[0]["compile_seconds"]:
        taken = [row["compile_seconds"][name] for row in rows]
        print(f"{name}: compiled in {statistics.median(taken):.2f} s, at most {max(taken):.2f} s")
    return {
        "geometric_mean": mean,
        "worst": worst["ratio"]["auto"],
        "worst_cell": [*worst["size"], worst["kind"]],
        "least_speedup_over_optax_vmap": slower,
    }


def main() -> None:
    """Prints the table and writes it to --output."""
    parser = parser_for(__doc__)
    parser.add_argument("--quick", action="store_true", help="three sizes, exact methods only")
    parser.add_argument("--tpu", metavar="TOPOLOGY", help="TPU slice to estimate, such as v5e:2x2")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    if options.tpu:
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

    device = jax.devices()[0].device_kind
    installed = [name for name in ("scipy", "optax", "jax", *PEERS) if has(PEERS.get(name, name))]
    versions = {name: importlib.metadata.version(name) for name in installed}
    print(f"device {device}, {host_threads()} threads, {versions}")
    sizes = SIZES[:3] if options.quick else SIZES
    rows = [run_cell(size, kind, options.quick) for size in sizes for kind in KINDS]
    report: dict[str, Any] = {"device": device, "threads": host_threads(), "versions": versions}
    report |= {"rows": rows, "summary": summarise(rows)}
    if options.tpu:
        report["tpu"] = [
            matching_tpu.estimate(options.tpu, make_cost(kind, 8, 256, 512), kind)
            for kind in ("gaussian", "clustered")
        ]
    write_json(options.output / "matching.json", report)
    print(f"written to {options.output}/matching.json")


if __name__ == "__main__":
    main()
