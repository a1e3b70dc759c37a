"""Compares sets, multisets and sequences of codes, trained under equal conditions.

    python -m benchmarks.quantizers [--codes 16] [--seeds 0 1 2] [--steps=2000]

Trains --config with each kind of quantizer, number of codes and seed for --steps, with the codebook
from a quarter of them on, each in a folder of --output. Finished runs are not repeated, so the same
command goes on after an interruption; `taskset -c 0` before it gives a run one core. Prints the
mean and standard deviation over seeds of each metric (docs/metrics.md). (Marginal bits of sets and
of sequences are different bounds.)
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import markdown, parser_for, spread

KINDS = ("matching", "nearest", "positional")
FIELDS = {
    "model.output": "conv",
    "model.local_output": False,
    "quantizer.noise": 0.0,
    "train.ema_decay": 0.99,
    "evaluate.every": 0,
    "evaluate.samples": 500,
}
COLUMNS = (
    ("PSNR dB", "psnr", 2),
    ("SSIM", "ssim", 4),
    ("LPIPS", "lpips", 4),
    ("reconstruction FID", "rfid", 4),
    ("capacity, bits", "ceiling_bits", 1),
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
Runs = dict[tuple[str, int], list[dict[str, Any]]]  # metrics of all seeds, by kind and N


def train(config: str, fields: dict[str, Any], workdir: Path) -> dict[str, Any]:
    """Trains and evaluates a model, unless that is already done; returns its metrics."""
    path = workdir / "metrics.json"
    if not path.exists():
        options = [f"--config={config}", f"--workdir={workdir}"]
        options += [f"--config.{name}={value}" for name, value in fields.items()]
        subprocess.run([sys.executable, "-m", "pivq_jax.main", *options], check=True)
    return json.loads(path.read_text())


def table(runs: Runs) -> str:
    """Formats means over seeds as Markdown: a line for each metric, a column for each kind."""
    lines = []
    for title, key, digits in COLUMNS:
        values = [
            [run[key] for run in seeds if run.get(key) is not None] for seeds in runs.values()
        ]
        lines.append([title, *(spread(each, digits) if each else "" for each in values)])
    return markdown(["", *(f"{kind}, N = {count}" for kind, count in runs)], lines)


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = parser_for(__doc__)
    parser.add_argument("--codes", type=int, nargs="+", default=[16], help="numbers of codes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--config", default="configs/toon_faces.py:large")
    parser.add_argument("--output", type=Path, default=Path("runs/quantizers"), help="of runs")
    options = parser.parse_args()
    runs: Runs = {}
    for count in sorted(options.codes):
        for kind in KINDS:
            for seed in options.seeds:
                fields = FIELDS | {
                    "seed": seed,
                    "train.steps": options.steps,
                    "quantizer.init_at": 0.25,
                    "quantizer.kind": kind,
                    "model.num_codes": count,
                }
                workdir = options.output / f"{kind},{count},{options.steps},{seed}"
                metrics = train(options.config, fields, workdir)
                runs.setdefault((kind, count), []).append(metrics)
    print(table(runs))


if __name__ == "__main__":
    main()
