"""Compares matching with nearest neighbour and with positions, under equal conditions.

    python -m benchmarks.ablation [--seeds 0 1 2] [--steps=2000] [--set=NAME=VALUE] ...

`benchmarks.screen` describes how rows are run, each on a core of the CPU; they are appended to
runs/ablation/rows.jsonl. All rows have `train.ema_decay=0.99` and `evaluate.samples=500`. A second
table has the mean and the standard deviation over seeds of each metric (docs/metrics.md). --set
changes fields of the config for all rows; each combination of fields has a folder of its own.
"""

from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import screen
from benchmarks.common import markdown, spread

ROWS: dict[str, screen.Changes] = {
    kind: {"quantizer.kind": kind} for kind in ("matching", "nearest", "positional")
}
SETTINGS = screen.SCREEN | {
    "model.output": "conv",
    "model.local_output": False,
    "quantizer.noise": 0.0,
}
COLUMNS: screen.Columns = (
    ("PSNR dB", "psnr", 2),
    ("SSIM", "ssim", 4),
    ("LPIPS", "lpips", 4),
    ("reconstruction FID", "rfid", 4),
    ("most bits", "ceiling_bits", 1),
    ("marginal bits", "marginal_bits", 1),
    ("distinct codes an image", "distinct_codes_per_image", 1),
    ("codes used", "codes_used", 1),
    ("perplexity", "perplexity", 0),
    ("samples: FID", "fid", 4),
    ("samples: precision", "precision", 3),
    ("samples: recall", "recall", 3),
    ("samples: density", "density", 3),
    ("samples: coverage", "coverage", 3),
    ("probes, mean", "probe_accuracy", 3),
    ("training seconds", "train_seconds", 0),
)
PROBES = ("beard", "mouth", "eyebrows")  # the factors that are hardest to find


def over_seeds(rows: list[dict[str, Any]]) -> str:
    """Formats means over seeds as Markdown: a line for each metric, a column for each kind."""
    runs = {kind: [row for row in rows if row["name"] == kind] for kind in ROWS}
    runs = {kind: found for kind, found in runs.items() if found}
    lines = []
    for title, key, digits in COLUMNS:
        values = [[row[key] for row in found if row[key] is not None] for found in runs.values()]
        lines.append([title, *(spread(each, digits) if each else "" for each in values)])
    if all(row["probes"].keys() >= {*PROBES} for row in rows):
        cells = [
            " / ".join(f"{mean(row['probes'][factor] for row in found):.2f}" for factor in PROBES)
            for found in runs.values()
        ]
        lines.append([f"probes: {' / '.join(PROBES)}", *cells])
    return markdown(["", *runs], lines)


if __name__ == "__main__":
    rows, _ = screen.main(
        __doc__, ROWS, Path("runs/ablation"), COLUMNS, steps=2_000, settings=SETTINGS
    )
    print(f"\n{over_seeds(rows)}")
