"""Trains a config with each of several changes, in short runs, for a table.

Rows are run two at a time, each pinned to a core (which requires Linux), appended to a file of JSON
lines as they finish, and not repeated, so the same command continues after an interruption. Each
row has the commit of its run: empty the file when what it measures has changed since.
"""

import datetime
import json
import os
import queue
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks import commit
from benchmarks.common import markdown, parser_for
from benchmarks.runs import run

CONFIG = "configs/toon_faces.py:large"  # as in the tables that were made before
SIDE_BY_SIDE = 2
# Settings of all rows, unless a row changes them.
SCREEN = {
    "quantizer.init_step": "250",
    "train.ema_decay": "0.99",
    "evaluate.samples": "500",
}
# Columns of a table: title, name in metrics.json, digits.
Columns = tuple[tuple[str, str, int], ...]
COLUMNS: Columns = (
    ("PSNR dB", "psnr", 2),
    ("LPIPS", "lpips", 4),
    ("FID", "fid", 4),
    ("density", "density", 3),
    ("coverage", "coverage", 3),
    ("probes", "probe_accuracy", 3),
    ("used", "codes_used", 0),
)


def changes_of(
    change: dict[str, str], steps: int, seed: int, settings: dict[str, str] = SCREEN
) -> dict[str, str]:
    """Returns the config fields of a run; a number of steps such as '2x' is relative to `steps`."""
    changes = settings | {"train.steps": str(steps), "seed": str(seed)} | change
    if changes["train.steps"].endswith("x"):
        changes["train.steps"] = str(round(steps * float(changes["train.steps"][:-1])))
    return changes


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of earlier calls."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(names: Iterable[str], rows: list[dict[str, Any]], columns: Columns) -> str:
    """Formats rows as Markdown, in the order of `names`, with one line per seed."""
    titles = [title for title, _, _ in columns]
    if probed := any(row["probes"] for row in rows):
        titles.append("least probe")
    lines = []
    for name in names:
        for row in sorted((row for row in rows if row["name"] == name), key=lambda r: r["seed"]):
            cells = [f"{row[key]:.{digits}f}" for _, key, digits in columns]
            if probed:
                least = min(row["probes"].items(), key=lambda probe: probe[1], default=None)
                cells.append(f"{least[1]:.2f} ({least[0]})" if least else "")
            lines.append([name, str(row["seed"]), *cells])
    return markdown(["", "seed", *titles], lines)


def origin(rows: list[dict[str, Any]]) -> str:
    """Says at which commits rows were measured; rows of earlier versions do not tell."""
    commits = {row.get("commit", "unknown") for row in rows}
    return f"measured at {', '.join(sorted(commits))}"


def run_side_by_side(
    todo: list[tuple[str, int]],
    measure: Callable[[str, int, int], dict[str, Any]],
    path: Path,
    describe: Callable[[dict[str, Any]], str],
) -> list[dict[str, Any]]:
    """Measures rows, each on a core of its own, and appends them to a file as they finish.

    `todo` has their names and seeds; `measure` gets these and the core to use, and returns the row,
    of which `describe` makes what is printed. Returns all rows.
    """
    rows: list[dict[str, Any]] = []
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    cores = sorted(os.sched_getaffinity(0))[:SIDE_BY_SIDE]
    for core in cores:
        free.put(core)

    def on_free_core(name: str, seed: int) -> dict[str, Any]:
        core = free.get()
        try:
            return measure(name, seed, core)
        finally:
            free.put(core)

    # Of the code that runs: once rows are appended to a file of it, the checkout is changed.
    measured = {"commit": commit(), "date": f"{datetime.date.today()}"}
    started = time.perf_counter()
    with ThreadPoolExecutor(len(cores)) as pool:
        futures = [pool.submit(on_free_core, *each) for each in todo]
        try:
            for number, future in enumerate(as_completed(futures), 1):
                row = future.result() | measured
                rows.append(row)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                left = (time.perf_counter() - started) / number * (len(todo) - number)
                print(
                    f"{number}/{len(todo)} {row['name']}, seed {row['seed']}: {describe(row)};"
                    f" about {left / 60:.0f} min left",
                    flush=True,
                )
        except BaseException:
            pool.shutdown(cancel_futures=True)  # running ones finish and are reused next time
            raise
    return rows


def main(
    description: str,
    changes: dict[str, dict[str, str]],
    path: Path,
    output: Path,
    columns: Columns = COLUMNS,
    steps: int = 1_000,
    config: str = CONFIG,
    settings: dict[str, str] = SCREEN,
    data: str = "",
) -> list[dict[str, Any]]:
    """Runs what is missing, prints the table and returns its rows.

    Args:
        description: text of `--help`.
        changes: the config fields that each row changes, by the row's name.
        path: default of `--rows`, the file of rows.
        output: default of `--output`, the folder of runs.
        columns: columns of the table; rows hold their values.
        steps: default of `--steps`.
        config: the config file.
        settings: fields of all rows, unless a row changes them.
        data: help text of `--data`, a directory of images; no such option by default.
    """
    parser = parser_for(description)
    parser.add_argument(
        "--only", nargs="+", default=list(changes), metavar="NAME", help="rows to run"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], metavar="SEED", help="seeds to run"
    )
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--output", type=Path, default=output, help="folder of runs")
    parser.add_argument("--rows", type=Path, default=path)
    if data:
        parser.add_argument("--data", type=Path, required=True, help=data)
    options = parser.parse_args()
    if data:
        settings = settings | {"data.path": str(options.data.expanduser().resolve())}
    names = options.only
    if unknown := [name for name in names if name not in changes]:
        parser.error(f"--only: {unknown[0]!r} is unknown, use some of {'; '.join(changes)}")

    rows = read_rows(options.rows)
    done = {(row["name"], row["steps"], row["seed"]) for row in rows}
    todo = [
        (name, seed)
        for seed in options.seeds
        for name in names
        if (name, options.steps, seed) not in done
    ]

    def measure(name: str, seed: int, core: int) -> dict[str, Any]:
        workdir = options.output / f"{name.replace(' ', '_')},{options.steps},{seed}"
        fields = changes_of(changes[name], options.steps, seed, settings)
        metrics = run(config, fields, workdir, core)
        return {
            "name": name,
            "steps": options.steps,
            "seed": seed,
            **{key: metrics[key] for _, key, _ in columns},
            "probes": {
                factor: each["codes"] for factor, each in metrics.get("attributes", {}).items()
            },
        }

    rows += run_side_by_side(todo, measure, options.rows, lambda row: f"{row['psnr']:.2f} dB")
    rows = [row for row in rows if row["steps"] == options.steps]
    print(table(changes, rows, columns))
    print(origin(rows))
    return rows
