"""Compares matching with nearest neighbour and with positions, under equal conditions.

    python -m benchmarks.ablation --config=configs/toon_faces.py --seeds=3 [--steps=2000]

Trains every kind with every seed for the same number of steps on the same batches with `python -m
pivq_jax.main`, each run in its own folder of --output (named after the changes by default), and
prints a table with the mean and standard deviation over seeds of the metrics in metrics.json, which
docs/metrics.md defines. Finished training and evaluation is not repeated, so the same command
continues after an interruption. Fields of the config are changed for all runs by --set=NAME=VALUE,
which may be repeated.
"""

import itertools
import time
from pathlib import Path
from typing import Any

from benchmarks.common import markdown, parser_for, spread
from benchmarks.runs import run

KINDS = ("matching", "nearest", "positional")
# Rows of the table: title, name in metrics.json, digits.
ROWS = (
    ("PSNR dB", "psnr", 2),
    ("SSIM", "ssim", 4),
    ("LPIPS", "lpips", 4),
    ("reconstruction FID", "rfid", 3),
    ("ceiling bits", "ceiling_bits", 1),
    ("marginal bits", "marginal_bits", 1),
    ("distinct codes an image", "distinct_codes_per_image", 2),
    ("codes used", "codes_used", 1),
    ("perplexity", "perplexity", 1),
    ("sample FID", "fid", 3),
    ("sample precision", "precision", 3),
    ("sample recall", "recall", 3),
    ("sample density", "density", 3),
    ("sample coverage", "coverage", 3),
    ("probe accuracy", "probe_accuracy", 3),
    ("training seconds", "train_seconds", 0),
)


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Formats the metrics of the runs of each kind, one row per metric and one column per kind."""
    rows = []
    for title, name, digits in ROWS:
        rows.append([title])
        for runs in results.values():
            values = [float(metrics[name]) for metrics in runs if metrics.get(name) is not None]
            rows[-1].append(spread(values, digits) if values else "")
    return markdown(["", *results], rows)


def folder_name(config: str, changes: dict[str, str]) -> str:
    """Returns the name of the folder of a comparison; each combination of changes has its own."""
    fields = sorted(f"{name}={value}" for name, value in changes.items())
    return ",".join([Path(config).name.replace(".py", ""), *fields]).replace("/", "_")


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = parser_for(__doc__)
    parser.add_argument("--config", default="configs/toon_faces.py", help="may include variants")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    parser.add_argument(
        "--steps", type=int, default=2_000, help="2,000 take four minutes on two idle cores"
    )
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--output", type=Path, help="default: runs/ablation/CONFIG,CHANGES")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        parser.error(f"--kinds: {unknown[0]!r} is unknown, use {', '.join(KINDS)}")
    if malformed := [change for change in options.set if "=" not in change]:
        parser.error(f"--set={malformed[0]}: give NAME=VALUE, as in --set=model.num_codes=16")
    changes = dict(change.split("=", 1) for change in options.set)
    changes["train.steps"] = str(options.steps)
    output = options.output or Path("runs/ablation") / folder_name(options.config, changes)

    started = time.perf_counter()
    planned = [*itertools.product(range(options.seeds), kinds)]
    results: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for number, (seed, kind) in enumerate(planned, 1):
        config = options.config
        if kind != "matching":
            config += f"{',' if ':' in config else ':'}{kind}"
        workdir = output / f"{kind}_seed{seed}"
        results[kind].append(run(config, changes | {"seed": str(seed)}, workdir))
        spent = time.perf_counter() - started
        left = spent / number * (len(planned) - number)
        print(
            f"{number}/{len(planned)} {kind}, seed {seed}: PSNR {results[kind][-1]['psnr']:.2f} dB;"
            f" {spent / 60:.0f} min spent, about {left / 60:.0f} min left",
            flush=True,
        )
    text = table(results)
    (output / "table.md").write_text(text + "\n")
    print(f"\n{text}\n\nwritten to {output}/table.md")


if __name__ == "__main__":
    main()
