"""Rate against distortion of sets, multisets and sequences of 8 to 64 codes.

    python -m benchmarks.rate_distortion [--only NAME ...] [--seeds SEED ...] [--steps=2000]

`benchmarks.screen` describes how rows are run, on a core of the CPU each; they are appended to
runs/rate_distortion/rows.jsonl, and the models are those of `benchmarks.ablation`, with its
`train.ema_decay=0.99` and `evaluate.samples=500`. With matplotlib, rate_distortion.png is drawn
beside them: PSNR and LPIPS against the most bits of an image, one curve for each kind, means over
seeds. (Marginal bits of sets and of sequences are different bounds, docs/metrics.md.)
"""

from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import ablation, screen
from benchmarks.common import has

KINDS = tuple(ablation.ROWS)
COUNTS = (8, 16, 32, 64)
ROWS: dict[str, screen.Changes] = {
    f"{kind}, N = {count}": {"quantizer.kind": kind, "model.num_codes": count}
    for count in COUNTS
    for kind in KINDS
}
BITS = "ceiling_bits"
COLUMNS: screen.Columns = (
    ("PSNR dB", "psnr", 2),
    ("LPIPS", "lpips", 4),
    ("reconstruction FID", "rfid", 4),
    ("most bits", BITS, 1),
    ("marginal bits", "marginal_bits", 1),
    ("distinct codes", "distinct_codes_per_image", 1),
    ("used", "codes_used", 0),
    ("FID", "fid", 4),
    ("density", "density", 3),
    ("probes", "probe_accuracy", 3),
)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws the curves; rows may be missing."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6))
    for axes, (title, name) in zip(panels, (("PSNR dB", "psnr"), ("LPIPS", "lpips")), strict=True):
        for kind in KINDS:
            points = []
            for count in COUNTS:
                found = [row for row in rows if row["name"] == f"{kind}, N = {count}"]
                if found:
                    points.append([mean(row[key] for row in found) for key in (BITS, name)])
            axes.plot(*zip(*points, strict=True), marker="o", label=kind)
        axes.set(xlabel="bits of an image, at most", ylabel=title)
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    rows, output = screen.main(
        __doc__,
        ROWS,
        Path("runs/rate_distortion"),
        COLUMNS,
        steps=2_000,
        settings=ablation.SETTINGS,
    )
    if has("matplotlib"):
        plot(rows, output / "rate_distortion.png")
