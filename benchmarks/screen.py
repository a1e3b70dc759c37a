"""Trains a config with each of several changes, in short runs, for a table.

Rows are run two at a time, each on a core of the CPU, also where there is a GPU (which requires
Linux). They are appended to a file of JSON lines beside the runs as they finish, and not repeated,
so the same command continues after an interruption. Each row has the commit at which its run began:
give another --output when what it measures has changed since.
"""

import argparse
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
Changes = dict[str, Any]  # values of config fields
# Settings of all rows, unless a row changes them.
SCREEN: Changes = {"train.ema_decay": 0.99, "evaluate.samples": 500}
# Columns of a table: title, name in metrics.json, digits.
Columns = tuple[tuple[str, str, int], ...]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of earlier calls."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def check_settings(parser: argparse.ArgumentParser, output: Path, settings: Changes) -> None:
    """Refuses a folder with runs of other settings, such as other images."""
    path = output / "settings.json"
    if path.exists() and json.loads(path.read_text()) != settings:
        parser.error(f"{path} has other settings than this command: give another --output")
    output.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings))


def table(names: Iterable[str], rows: list[dict[str, Any]], columns: Columns) -> str:
    """Formats rows as Markdown, in the order of `names`, with one line per seed."""
    titles = [title for title, _, _ in columns]
    if probed := any(row["probes"] for row in rows):
        titles.append("least probe")
    lines = []
    for name in names:
        for row in sorted((row for row in rows if row["name"] == name), key=lambda r: r["seed"]):
            cells = ["" if row[k] is None else f"{row[k]:.{digits}f}" for _, k, digits in columns]
            if probed:
                least = min(row["probes"].items(), key=lambda probe: probe[1], default=None)
                cells.append(f"{least[1]:.2f} ({least[0]})" if least else "")
            lines.append([name, str(row["seed"]), *cells])
    return markdown(["", "seed", *titles], lines)


def origin(rows: list[dict[str, Any]]) -> str:
    """Says at which commits rows were measured; rows of earlier versions do not tell."""
    commits = {row.get("commit", "unknown") for row in rows}
    found = f"measured at {', '.join(sorted(commits))}"
    if len(commits) > 1:
        found += "\nWarning: these are several commits, whose rows may not be comparable"
    return found


def begun(workdir: Path, now: dict[str, str]) -> dict[str, str]:
    """Returns commit and date at which a run began; for a new one they are `now`, and kept."""
    path = workdir / "measured.json"
    if not any((workdir / name).exists() for name in ("config.json", "metrics.json")):
        workdir.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(now))
    return json.loads(path.read_text()) if path.exists() else {"commit": "unknown"}


def run_side_by_side(
    todo: dict[tuple[str, int], Path],
    measure: Callable[[str, int, Path, int], dict[str, Any]],
    path: Path,
    describe: Callable[[dict[str, Any]], str],
) -> list[dict[str, Any]]:
    """Measures rows, each on a core of its own, and appends them to a file as they finish.

    `todo` has their folders by name and seed; `measure` gets all these and the core to use, and
    returns the row, of which `describe` makes what is printed. Returns all rows; if some failed,
    the others are measured first.
    """
    rows: list[dict[str, Any]] = []
    failures: list[BaseException] = []
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    cores = sorted(os.sched_getaffinity(0))[:SIDE_BY_SIDE]
    for core in cores:
        free.put(core)
    # Of the code that runs: once rows are appended to a file of it, the checkout is changed.
    now = {"commit": commit(), "date": f"{datetime.date.today()}"}

    def on_free_core(name: str, seed: int, workdir: Path) -> dict[str, Any]:
        core = free.get()
        try:
            measured = begun(workdir, now)
            return measure(name, seed, workdir, core) | measured
        finally:
            free.put(core)

    started = time.perf_counter()
    with ThreadPoolExecutor(len(cores)) as pool:
        futures = {pool.submit(on_free_core, *row, todo[row]): row for row in todo}
        try:
            for number, future in enumerate(as_completed(futures), 1):
                name, seed = futures[future]
                try:
                    row = future.result()
                except (Exception, SystemExit) as failure:
                    failures.append(failure)
                    became = f"failed: {failure}"
                else:
                    rows.append(row)
                    with path.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    became = describe(row)
                left = (time.perf_counter() - started) / number * (len(todo) - number)
                print(
                    f"{number}/{len(todo)} {name}, seed {seed}: {became};"
                    f" about {left / 60:.0f} min left",
                    flush=True,
                )
        except BaseException:
            pool.shutdown(cancel_futures=True)  # running ones finish and are reused next time
            raise
    if failures:
        raise failures[0]
    return rows


def main(
    description: str,
    changes: dict[str, Changes],
    output: Path,
    columns: Columns,
    steps: int,
    config: str = CONFIG,
    settings: Changes = SCREEN,
    data: str = "",
) -> tuple[list[dict[str, Any]], Path]:
    """Runs what is missing, prints the table and returns its rows and the folder of runs.

    The codebook of all rows starts after a quarter of the steps, unless `settings` or a row say
    otherwise.

    Args:
        description: text of `--help`.
        changes: the config fields that each row changes, by the row's name.
        output: default of `--output`, the folder of runs.
        columns: columns of the table; rows hold their values.
        steps: default of `--steps`.
        config: default of `--config`.
        settings: fields of all rows, unless a row changes them.
        data: help text of `--data`, a directory of images; no such option by default.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"  # of the runs
    parser = parser_for(description)
    parser.add_argument(
        "--only", nargs="+", default=list(changes), metavar="NAME", help="rows to run"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], metavar="SEED", help="seeds to run"
    )
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--config", default=config, help="may include variants")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a field of all rows"
    )
    parser.add_argument("--output", type=Path, help=f"of runs; default {output},NAME=VALUE,...")
    if data:
        parser.add_argument("--data", type=Path, required=True, help=data)
    options = parser.parse_args()
    if malformed := [change for change in options.set if "=" not in change]:
        parser.error(f"--set={malformed[0]}: give NAME=VALUE, as in --set=model.num_codes=16")
    names = options.only
    if unknown := [name for name in names if name not in changes]:
        parser.error(f"--only: {unknown[0]!r} is unknown, use some of {'; '.join(changes)}")
    if data:
        settings = settings | {"data.path": str(options.data.expanduser().resolve())}
    of_all = dict(change.split("=", 1) for change in options.set)
    default = ",".join([output.name, *sorted(options.set)]).replace("/", "_")
    output = options.output or output.with_name(default)
    check_settings(parser, output, {"config": options.config} | settings | of_all)

    path = output / "rows.jsonl"
    rows = read_rows(path)
    done = {(row["name"], row["steps"], row["seed"]) for row in rows}
    todo = {
        (name, seed): output / f"{name.replace(' ', '_')},{options.steps},{seed}"
        for seed in options.seeds
        for name in names
        if (name, options.steps, seed) not in done
    }

    def measure(name: str, seed: int, workdir: Path, core: int) -> dict[str, Any]:
        short = {"train.steps": options.steps, "quantizer.init_at": 0.25}
        fields = short | {"seed": seed} | settings | changes[name] | of_all
        metrics = run(options.config, fields, workdir, core)
        return {
            "name": name,
            "steps": options.steps,
            "seed": seed,
            **{key: metrics.get(key) for _, key, _ in columns},
            "probes": {
                factor: each["codes"] for factor, each in metrics.get("attributes", {}).items()
            },
        }

    rows += run_side_by_side(todo, measure, path, lambda row: f"{row['psnr']:.2f} dB")
    rows = [row for row in rows if row["steps"] == options.steps]
    print(table(changes, rows, columns))
    print(origin(rows))
    return rows, output
