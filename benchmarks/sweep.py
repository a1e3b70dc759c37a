"""Changes the training settings of the default run one at a time, in short runs.

    python -m benchmarks.sweep [--only=NAME ...] [--seeds=1] [--steps=1000]

Trains and evaluates the default config with each of the changes below, two runs at a time, each
pinned to a core, and prints a table. Rows are appended to --rows (docs/tables/sweep.jsonl) as they
finish and are not repeated, so the same command continues after an interruption (empty the file
when the default config has changed). Requires Linux to pin runs to cores. In all rows, the short
runs initialize the codebook early (step 250) and average their weights over few steps.
"""

import argparse
import json
import os
import queue
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.runs import run

CONFIG = "configs/toon_faces.py"
SIDE_BY_SIDE = 2
# Settings of all rows, unless a row changes them.
SCREEN = {
    "quantizer.init_step": "250",
    "train.ema_decay": "0.99",
    "evaluate.samples": "500",
}
ADAMW = {"optimizer.name": "adamw"}
ROWS: dict[str, dict[str, str]] = {
    "as the config has it": {},
    "AdamW": ADAMW,
    "AdamW, rate 7.5e-4": ADAMW | {"optimizer.learning_rate": "7.5e-4"},
    "AdamW, rate 3e-3": ADAMW | {"optimizer.learning_rate": "3e-3"},
    "Muon's rate 3e-3": {"optimizer.muon_learning_rate": "3e-3"},
    "Muon's rate 1.2e-2": {"optimizer.muon_learning_rate": "1.2e-2"},
    "rate of all else 3e-3": {"optimizer.learning_rate": "3e-3"},
    "momentum 0.9": {"optimizer.momentum": "0.9"},
    "momentum 0.98": {"optimizer.momentum": "0.98"},
    "warm-up of 50 steps": {"optimizer.warmup_steps": "50"},
    "no weight decay": {"optimizer.weight_decay": "0"},
    "weight decay 0.1": {"optimizer.weight_decay": "0.1"},
    "batches of 8, twice the steps": {
        "train.batch_size": "8",
        "train.steps": "2x",
        "quantizer.init_step": "500",
    },
    "batches of 32, half the steps": {
        "train.batch_size": "32",
        "train.steps": "0.5x",
        "quantizer.init_step": "125",
    },
    "averages over 1,000 steps": {"train.ema_decay": "0.999"},
    "no clipping": {"optimizer.clip_norm": "1e9"},
    "codebook from step 100": {"quantizer.init_step": "100"},
    "codebook from step 500": {"quantizer.init_step": "500"},
    "recombination's weight 2": {"loss.recombination": "2.0"},
    "recombination at full weight at once": {"loss.recombination_warmup": "0"},
}
COLUMNS = (
    ("PSNR dB", "psnr", 2),
    ("LPIPS", "lpips", 4),
    ("FID", "fid", 4),
    ("density", "density", 3),
    ("coverage", "coverage", 3),
    ("probes", "probe_accuracy", 3),
    ("used", "codes_used", 0),
)


def changes_of(name: str, steps: int, seed: int) -> dict[str, str]:
    """Returns the config fields that a row changes; a number of steps such as '2x' is relative."""
    changes = SCREEN | {"train.steps": str(steps), "seed": str(seed)} | ROWS[name]
    if changes["train.steps"].endswith("x"):
        changes["train.steps"] = str(round(steps * float(changes["train.steps"][:-1])))
    return changes


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of earlier calls."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(rows: list[dict[str, Any]]) -> str:
    """Formats the rows as Markdown, in the order of `ROWS`, with one line per seed."""
    titles = [title for title, _, _ in COLUMNS]
    lines = [
        f"| | seed | {' | '.join(titles)} | least probe |",
        "| --- |" + " ---: |" * (len(titles) + 2),
    ]
    for name in ROWS:
        for row in sorted((row for row in rows if row["name"] == name), key=lambda r: r["seed"]):
            cells = [f"{row[key]:.{digits}f}" for _, key, digits in COLUMNS]
            least = min(row["probes"], key=row["probes"].__getitem__)
            cells.append(f"{row['probes'][least]:.2f} ({least})")
            lines.append(f"| {name} | {row['seed']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=list(ROWS), metavar="NAME", help="rows to run")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 0")
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--output", type=Path, default=Path("runs/sweep"), help="folder of runs")
    parser.add_argument("--rows", type=Path, default=Path("docs/tables/sweep.jsonl"))
    options = parser.parse_args()
    names = options.only
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"--only: {unknown[0]!r} is unknown, use some of {'; '.join(ROWS)}")

    rows = read_rows(options.rows)
    done = {(row["name"], row["steps"], row["seed"]) for row in rows}
    todo = [
        (name, seed)
        for seed in range(options.seeds)
        for name in names
        if (name, options.steps, seed) not in done
    ]
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    cores = sorted(os.sched_getaffinity(0))[:SIDE_BY_SIDE]
    for core in cores:
        free.put(core)

    def measure(name: str, seed: int) -> dict[str, Any]:
        core = free.get()
        try:
            workdir = options.output / f"{name.replace(' ', '_')},{options.steps},{seed}"
            metrics = run(CONFIG, changes_of(name, options.steps, seed), workdir, core)
        finally:
            free.put(core)
        return {
            "name": name,
            "steps": options.steps,
            "seed": seed,
            **{key: metrics[key] for _, key, _ in COLUMNS},
            "probes": {factor: each["codes"] for factor, each in metrics["attributes"].items()},
        }

    started = time.perf_counter()
    with ThreadPoolExecutor(len(cores)) as pool:
        futures = [pool.submit(measure, *each) for each in todo]
        try:
            for number, future in enumerate(as_completed(futures), 1):
                row = future.result()
                rows.append(row)
                options.rows.parent.mkdir(parents=True, exist_ok=True)
                with options.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                left = (time.perf_counter() - started) / number * (len(todo) - number)
                print(
                    f"{number}/{len(todo)} {row['name']}, seed {row['seed']}: {row['psnr']:.2f} dB;"
                    f" about {left / 60:.0f} min left",
                    flush=True,
                )
        except BaseException:
            pool.shutdown(cancel_futures=True)  # running ones finish and are reused next time
            raise
    print(table([row for row in rows if row["steps"] == options.steps]))


if __name__ == "__main__":
    main()
