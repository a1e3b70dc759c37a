"""Compares matching with other solvers: `python -m benchmarks.matching [--quick] [--tpu=v5e:2x2]`.

All methods solve the same batches in one run, in turn; the table contains medians. SciPy and lapx
get precomputed float64 arrays and run on the host in one thread. Solvers that are not installed
(lapx, optax, torch with torch-linear-assignment) are left out. `--tpu` adds estimates of the TPU
compiler, which need libtpu (`pip install "jax[tpu]"`) but no TPU. On a machine with a GPU the JAX
methods run there.
"""

import functools
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from benchmarks import matching_tpu
from benchmarks.common import has, parser_for, pyplot, save_figure
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
OWN = ("auto", "auction", "sinkhorn", "greedy")
DIMENSIONS = 64
LEAST_REPEATS = 3


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


def solve_lapx(cost: np.ndarray) -> np.ndarray:
    """Columns int32 [B, N] by lapx, one problem after another."""
    import lap

    square = cost.shape[1] == cost.shape[2]
    return np.stack([lap.lapjv(problem, extend_cost=not square)[1] for problem in cost])


def solve_torch(cost: Any) -> Any:
    """Columns int64 [B, N] by torch-linear-assignment."""
    import torch
    from torch_linear_assignment import batch_linear_assignment

    columns = batch_linear_assignment(cost)
    if cost.is_cuda:
        torch.cuda.synchronize()
    return columns


def optax_solver(mapped: bool) -> Callable[[jax.Array], jax.Array]:
    """Returns the Hungarian algorithm of optax for a batch, by `lax.map` or by `vmap`."""
    import optax

    def one(cost: jax.Array) -> jax.Array:
        # Returns rows and columns, as for N = K one of them is known without solving the problem.
        return optax.assignment.hungarian_algorithm(cost)

    return functools.partial(jax.lax.map, one) if mapped else jax.vmap(one)


def compiled(solve: Callable[[jax.Array], Any], cost: jax.Array) -> Callable[[], Any]:
    """Returns a function that runs compiled code and waits for it."""
    program = jax.jit(solve).lower(cost).compile()
    return lambda: jax.block_until_ready(program(cost))


def runners(cost: np.ndarray, own: tuple[str, ...], slow: bool) -> dict[str, Callable[[], Any]]:
    """Returns a function for each method that is available here, for this batch."""
    wide, on_device = cost.astype(np.float64), jnp.asarray(cost)
    calls: dict[str, Callable[[], Any]] = {"scipy": lambda: solve_scipy(wide)}
    if has("lap"):
        calls["lapx"] = lambda: solve_lapx(wide)
    for method in own:
        calls[method] = compiled(functools.partial(match, method=method), on_device)
    if has("optax"):
        calls["optax vmap"] = compiled(optax_solver(mapped=False), on_device)
        if slow:
            calls["optax map"] = compiled(optax_solver(mapped=True), on_device)
    if has("torch", "torch_linear_assignment"):
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        tensor = torch.from_numpy(cost).to(device)
        calls["torch-la"] = lambda: solve_torch(tensor)
    return calls


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


def excess(cost: np.ndarray, columns: Any, optimum: np.ndarray) -> float:
    """Largest relative cost above SciPy's optimum in the batch."""
    columns = np.asarray(columns)[..., None]
    total = np.take_along_axis(cost.astype(np.float64), columns, 2)[..., 0].sum(-1)
    return float(np.max((total - optimum) / size_of(cost, optimum)))


def size_of(cost: np.ndarray, optimum: np.ndarray) -> np.ndarray:
    """Reference for relative errors: the optimum, or the mean cost if that is larger."""
    return np.maximum(optimum, cost.mean((1, 2)))


def run_cell(
    size: tuple[int, int, int], kind: str, own: tuple[str, ...], slow: bool, repeats: int
) -> dict[str, Any]:
    """Times, ratios, excesses and steps for one size and kind."""
    cost = make_cost(kind, *size)
    seconds, results = time_in_turns(runners(cost, own, slow), repeats, budget=0.4)
    picked = np.asarray(results["scipy"])[..., None]
    optimum = np.take_along_axis(cost.astype(np.float64), picked, 2)[..., 0].sum(-1)
    row: dict[str, Any] = {"size": size, "kind": kind, "milliseconds": {}, "ratio": {}}
    row["excess"], row["gap"] = {}, {}
    for name, taken in seconds.items():
        row["milliseconds"][name] = 1e3 * taken
        row["ratio"][name] = taken / seconds["scipy"]
        if name in own:
            row["excess"][name] = excess(cost, results[name].columns, optimum)
            row["gap"][name] = float(np.max(np.asarray(results[name].gap) / size_of(cost, optimum)))
    row["steps"] = {name: int(n) for name, n in count_steps(jnp.asarray(cost))._asdict().items()}
    return row


def print_row(row: dict[str, Any]) -> None:
    """Prints the result of `run_cell`."""
    size = "x".join(map(str, row["size"]))
    ratios = "  ".join(
        f"{name} {ratio:.2f}" for name, ratio in row["ratio"].items() if name != "scipy"
    )
    steps = row["steps"]
    print(
        f"{size:>12} {row['kind']:<9} scipy {row['milliseconds']['scipy']:7.2f} ms | {ratios} | "
        f"auction steps {steps['rounds']} + {steps['waves']} + {steps['searches']}",
        flush=True,
    )


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Prints one line per criterion and returns the values."""
    ratios = [row["ratio"]["auto"] for row in rows]
    worst = max(rows, key=lambda row: row["ratio"]["auto"])
    summary: dict[str, Any] = {
        "geometric_mean": statistics.geometric_mean(ratios),
        "worst": worst["ratio"]["auto"],
        "worst_cell": [*worst["size"], worst["kind"]],
    }
    print(f"\nauto / SciPy: geometric mean {summary['geometric_mean']:.2f} (to show: at most 0.7)")
    cell = f"{worst['kind']} {'x'.join(map(str, worst['size']))}"
    print(f"auto / SciPy: worst cell {summary['worst']:.2f} (at most 1.0), {cell}")
    if all("optax vmap" in row["ratio"] for row in rows):
        slower = min(row["ratio"]["optax vmap"] / row["ratio"]["auto"] for row in rows)
        summary["least_speedup_over_optax_vmap"] = slower
        print(f"optax vmap / auto: least {slower:.1f} (at least 4)")
    for name in ("auto", "auction", "sinkhorn", "greedy"):
        over = [row["excess"][name] for row in rows if name in row["excess"]]
        bounds = [row["gap"][name] for row in rows if name in row["gap"]]
        if over:
            print(
                f"{name}: largest excess {max(over):.1e} of the cost, certified {max(bounds):.1e}"
            )
    return summary


def plot(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Plots the ratios to SciPy."""
    plt = pyplot()
    names = [name for name in rows[0]["ratio"] if name != "scipy"]
    figure, axes = plt.subplots(figsize=(12, 4.5))
    labels = ["x".join(map(str, row["size"])) + "\n" + row["kind"] for row in rows]
    for name in names:
        values = [row["ratio"].get(name, np.nan) for row in rows]
        axes.plot(values, "o-", label=name, markersize=3, linewidth=1)
    axes.axhline(1.0, color="black", linewidth=1)
    axes.set_yscale("log")
    axes.set_ylabel("time / SciPy's")
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=6)
    axes.legend(ncols=4, fontsize=8)
    save_figure(figure, path)


def main() -> None:
    """Prints the table and writes it to --output."""
    parser = parser_for(__doc__)
    parser.add_argument("--quick", action="store_true", help="three sizes, exact methods only")
    parser.add_argument("--tpu", metavar="TOPOLOGY", help="TPU slice to estimate, such as v5e:2x2")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/benchmarks"))
    options = parser.parse_args()
    if options.tpu:
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

    device = jax.devices()[0].device_kind
    print(f"device {device}, {os.cpu_count()} CPU cores, jax {jax.__version__}")
    sizes = SIZES[:3] if options.quick else SIZES
    own = ("auto",) if options.quick else OWN
    rows = []
    for size in sizes:
        for kind in KINDS:
            rows.append(run_cell(size, kind, own, not options.quick, 5 if options.quick else 7))
            print_row(rows[-1])
    report: dict[str, Any] = {"device": device, "rows": rows, "summary": summarise(rows)}
    if options.tpu:
        report["tpu"] = [
            matching_tpu.estimate(options.tpu, make_cost(kind, 8, 256, 512), kind)
            for kind in ("gaussian", "clustered")
        ]
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "matching.json").write_text(json.dumps(report, indent=1))
    if has("matplotlib"):
        plot(rows, options.output / "matching.png")
    print(f"written to {options.output}/matching.json" + " and .png" * has("matplotlib"))


if __name__ == "__main__":
    main()
