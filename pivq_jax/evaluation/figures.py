"""The figures of an evaluation in groups, under the names of docs/metrics.md: for page and console.

Figures that an evaluation does not have are left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pivq_jax.evaluation.html import Table, cell

REAL = "training images: real against real"  # the row to compare that of samples with
SPREAD = ("precision", "recall", "density", "coverage")
NAMES = {
    "Model": {
        "step": "step",
        "image_size": "pixels along a side",
        "num_codes": "codes per image, N",
        "codebook_size": "codebook entries, K",
        "parameters": "parameters",
        "train_seconds": "seconds of training",
        "train_images_per_second": "training images per second",
        "sample_images_per_second": "samples per second",
    },
    "Reconstruction": {
        "psnr": "PSNR, dB",
        "ssim": "SSIM",
        "lpips": "LPIPS",
        "l1": "L1, pixels in [-1, 1]",
        "rfid": "rFID",
    },
    "Codes": {
        "ceiling_bits": "ceiling bits",
        "marginal_bits": "marginal bits",
        "prior_bits": "prior bits",
        "distinct_codes_per_image": "distinct codes per image",
        "codes_used": "codes used",
        "constant_codes": "constant codes",
        "perplexity": "perplexity",
    },
    "What codes mean": {
        "probe_accuracy": "balanced accuracy of probes",
        "probe_majority": "that of the most frequent value",
    },
}


def groups(metrics: dict[str, Any]) -> Iterator[tuple[str, Table]]:
    """Yields the title and the table of each group of figures in `metrics.json`."""
    yield "Model", named(metrics, "Model")
    images = f"{metrics.get('images', 0):,} test images"
    yield f"Reconstruction of {images}", named(metrics, "Reconstruction")
    yield "Codes, bits per image", named(metrics, "Codes")
    if "fid" in metrics:
        yield f"Against {metrics['real_images']:,} test images", distribution(metrics)
    yield "What codes mean", named(metrics, "What codes mean")


def text(table: Table) -> str:
    """Lays a table out for a console, indented."""
    rows = [[cell(each) for each in row] for row in (table.header, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return "\n".join(f"  {line}".rstrip() for line in lines if line.strip())


def named(metrics: dict[str, Any], group: str) -> Table:
    """The figures of a group of `NAMES`."""
    fid = fid_name(metrics)
    rows = [
        (title.replace("FID", fid), metrics[name])
        for name, title in NAMES[group].items()
        if metrics.get(name) is not None
    ]
    return Table(("", ""), rows)


def by_row(
    corner: str,
    rows: Mapping[str, Mapping[str, Any]],
    names: Sequence[str],
    titles: Sequence[str] = (),
) -> Table:
    """A table of some figures of each row; `titles` are those of the columns, if not the names."""
    cells = [(title, *(row[name] for name in names)) for title, row in rows.items()]
    return Table((corner, *(titles or names)), cells)


def distribution(metrics: dict[str, Any]) -> Table:
    """How samples, and what they are compared with, are spread beside test images."""
    titles = ("images", fid_name(metrics), *SPREAD)
    return by_row("", compared(metrics), ("sample_images", "fid", *SPREAD), titles)


def compared(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The metrics of samples and of what they are compared with, by title."""
    baselines = metrics["baselines"]
    return {
        "samples": metrics,
        REAL: baselines["training images"],
        "averaged pixels of pairs": baselines["averaged pairs"],
    }


def fid_name(metrics: dict[str, Any]) -> str:
    """`FID` of the network that defines it; `VGG-FID` is not comparable with that of papers."""
    return "VGG-FID" if metrics.get("feature_network", "").startswith("VGG") else "FID"
