"""Measures how fast a model learns: PSNR over training time, and the time to a given PSNR.

    python -m pivq_jax.main --config=configs/toon_faces.py --workdir=runs/curve/muon_0 \\
      --config.train.checkpoint_every=100 --config.checkpoints.keep=1000 --config.seed=0
    python -m benchmarks.learning_curve --workdir runs/curve/muon_* [--target=30]

For every checkpoint of each run, measures the mean PSNR of the averaged weights on the whole
validation split. Times are those of training, including compilation, the writing of checkpoints and
the k-means of those before the codebook's start, excluding evaluation. Runs whose names differ only
in a number at the end (`muon_0`, `muon_1`) are seeds of one setting. Prints the seconds at which
each run first reaches the target. Measurements are kept in `curve.json` in the folder of a run and
not repeated. Writes learning_curve.png (with matplotlib) to --output.
"""

import collections
import json
import re
import statistics
from pathlib import Path

import numpy as np

import pivq_jax
from benchmarks.common import has, markdown, parser_for, pyplot, save_figure
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import write_json
from pivq_jax.evaluation.reconstruction import reconstruct_split
from pivq_jax.training.build import dataset_from_config
from pivq_jax.training.checkpoints import Checkpoints

Curve = list[dict[str, float]]  # step, seconds, psnr


def measure(workdir: Path) -> Curve:
    """Returns the curve of one run, oldest checkpoint first; earlier measurements are reused."""
    path = workdir / "curve.json"
    curve: Curve = json.loads(path.read_text()) if path.exists() else []
    with Checkpoints(workdir, read_only=True) as checkpoints:
        steps = checkpoints.steps()
    dataset = None
    for step in steps:
        if any(row["step"] == step for row in curve):
            continue
        try:
            model = pivq_jax.load(workdir, step)
        except InputError:  # of an earlier version, before the codebook
            continue
        dataset = dataset or dataset_from_config(model.config)
        result = reconstruct_split(model, dataset.validation, model.config.evaluate.batch_size)
        row = {"step": step, "seconds": model.progress["train_seconds"]}
        curve.append(row | {"psnr": float(np.mean(result.psnr))})
        print(
            f"{workdir} step {step}: {row['seconds']:.0f} s, {curve[-1]['psnr']:.2f} dB", flush=True
        )
        write_json(path, curve)
    return curve


def plot(curves: dict[str, list[Curve]], target: float, path: Path) -> None:
    """Plots one colour per setting and one line per seed."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7, 4))
    for number, (name, seeds) in enumerate(curves.items()):
        for seed, curve in enumerate(seeds):
            axes.plot(
                [row["seconds"] for row in curve],
                [row["psnr"] for row in curve],
                color=f"C{number}",
                label=name if seed == 0 else None,
            )
    axes.axhline(target, color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="seconds of training", ylabel="PSNR dB, validation split", ylim=(15, None))
    axes.legend()
    save_figure(figure, path)


def main() -> None:
    """Measures the runs and prints the table."""
    parser = parser_for(__doc__)
    parser.add_argument("--workdir", type=Path, nargs="+", required=True, help="trained runs")
    parser.add_argument("--target", type=float, default=30.0, help="PSNR in dB")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()

    curves: dict[str, list[Curve]] = collections.defaultdict(list)
    for workdir in options.workdir:
        curve = measure(workdir)
        if not curve:
            parser.error(f"{workdir} has no checkpoint with a codebook: continue its training")
        curves[re.sub(r"[_-]?\d+$", "", workdir.name)].append(curve)

    rows = []
    for name, seeds in curves.items():
        reached = [
            next((row["seconds"] for row in curve if row["psnr"] >= options.target), float("nan"))
            for curve in seeds
        ]
        last = statistics.mean(curve[-1]["psnr"] for curve in seeds)
        each = ", ".join(f"{seconds:.0f}" for seconds in reached)
        rows.append([name, each, f"{statistics.mean(reached):.0f}", f"{last:.2f}"])
    head = ["", f"seconds to {options.target:g} dB, each run", "mean", "last PSNR, mean"]
    print(f"\n{markdown(head, rows, texts=2)}")
    if has("matplotlib"):
        plot(curves, options.target, options.output / "learning_curve.png")


if __name__ == "__main__":
    main()
