"""What the page and the console show of `metrics.json`, by the names in docs/metrics.md.

Figures that an evaluation does not have are left out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pivq_jax.common.output import as_text
from pivq_jax.evaluation.evaluator import IMAGES
from pivq_jax.evaluation.html import Part, Picture, Table

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
    "Prior": {
        "prior_bits": "prior bits",
    },
    "Copies": {
        "copied_share": "copied share of samples",
        "copied_share_test": "that of test images",
    },
    "What codes mean": {
        "probe_accuracy": "balanced accuracy of probes",
        "probe_majority": "that of the most frequent value",
    },
}
SPREAD = {name: name for name in ("precision", "recall", "density", "coverage")}

_BELOW = "each above the reconstruction of the training image with most codes in common"
CAPTIONS = {
    "training": f"Averaged weights by step, on at most {IMAGES} validation images and as many"
    " samples; FIDs are of VGG16's features, whatever those of the tables are of.",
    "reconstructions": "Test images, each above its reconstruction.",
    "usage": "Fraction of test images that contain each entry, descending.",
    "samples": "Samples.",
    "parents": "Triples of parent, sample and parent.",
    "many_parents": "Samples of more than two parents.",
    "interpolations": "Interpolations between two images by exchanging codes.",
    "neighbours": "Samples, each followed by the nearest of some training images, their parents"
    " among them.",
    **{f"prior_temperature_{t:g}": f"Drawn at temperature {t:g}, {_BELOW}." for t in (1.0, 0.9)},
    "prior_recombined": f"Recombined, {_BELOW}.",
    "prior_completions": "Test images from all their codes in the top row; below, from three"
    " quarters, a half and a quarter of them, completed by the prior in two ways each.",
    "atlas": "Code atlas.",
}


def print_metrics(metrics: dict[str, Any]) -> None:
    """Prints the figures in groups, and what was left out."""
    images = f"{metrics.get('images', 0):,} test images"
    groups = {
        "Model": named(metrics, "Model"),
        f"Reconstruction of {images}": named(metrics, "Reconstruction"),
        "Codes, bits per image": named(metrics, "Codes"),
    }
    if "fid" in metrics:
        groups[f"Against {metrics['real_images']:,} test images"] = distribution(metrics)
    groups["Copies of one training image"] = named(metrics, "Copies")
    groups["What codes mean"] = named(metrics, "What codes mean")
    for title, table in groups.items():
        if table.rows:
            print(f"\n{title}\n{_text(table)}")
    for stage, reason in metrics["left_out"].items():
        print(f"\nLeft out, {stage}: {reason}")
    print()


def _text(table: Table) -> str:
    """Lays a table out for a console, indented."""
    rows = [[as_text(each) for each in row] for row in (table.header, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return "\n".join(f"  {line}".rstrip() for line in lines if line.strip())


def sections(metrics: dict[str, Any], folder: Path) -> dict[str, list[Part]]:
    """The sections of the page by title, with the pictures of a folder."""

    def pictures(*names: str) -> list[Picture]:
        files = {name: folder / f"{name}.png" for name in names}
        return [Picture(f.read_bytes(), CAPTIONS[name]) for name, f in files.items() if f.exists()]

    sections: dict[str, list[Part]] = {
        "Model": [named(metrics, "Model"), *pictures("training")],
        "Reconstruction": [
            f"Means over {metrics.get('images', 0):,} test images, of output rounded to 8 bits.",
            named(metrics, "Reconstruction"),
            *pictures("reconstructions"),
        ],
        "Codes": [
            "Bits per image over the test split: the ceiling counts all possible codes, the"
            " marginal bits are an upper bound on their entropy.",
            named(metrics, "Codes"),
            *pictures("usage"),
        ],
        "Samples": [
            "Recombined code sets of training images, decoded in one pass.",
            *_spread(metrics),
            *_copies(metrics),
            *pictures("samples", "parents", "many_parents", "interpolations", "neighbours"),
        ],
    }
    if "prior_bits" in metrics:
        columns = {
            "sets": "sets",
            "shared_codes": "codes shared with the nearest training image",
            "copies": "copies of one",
        }
        sections["Prior"] = [
            "The prior bits are an upper bound, the mean over the test sets. They stand beside the"
            " marginal and ceiling bits of codes, above.",
            named(metrics, "Prior"),
            _by_row("", metrics["prior_sets"], columns),
            *pictures(*(name for name in CAPTIONS if name.startswith("prior"))),
        ]
    sections["What codes mean"] = [*_attributes(metrics), *pictures("atlas")]
    if left_out := metrics["left_out"]:
        sections["Left out"] = [f"{stage}: {reason}" for stage, reason in left_out.items()]
    return sections


def named(metrics: dict[str, Any], group: str) -> Table:
    """The figures of a group of `NAMES`."""
    rows = [
        (title.replace("FID", fid_name(metrics)), metrics[name])
        for name, title in NAMES[group].items()
        if metrics.get(name) is not None
    ]
    return Table(("", ""), rows)


def distribution(metrics: dict[str, Any]) -> Table:
    """How samples, and what they are compared with, are spread beside test images."""
    columns = {"sample_images": "images", "fid": fid_name(metrics), **SPREAD}
    return _by_row("", _compared(metrics), columns)


def _spread(metrics: dict[str, Any]) -> list[Part]:
    if "fid" not in metrics:
        return []
    about = (
        f"Against {metrics['real_images']:,} test images, k = {metrics['neighbours']}; real images"
        " against real ones are what new real images reach. Features:"
        f" {metrics['feature_network']}. Images: {metrics['feature_preprocessing']}."
    )
    if fid_name(metrics) != "FID":
        about += (
            " The Fréchet distance of other features than Inception's is not comparable with the"
            " FID of papers."
        )
    parts: list[Part] = [about, distribution(metrics)]
    for name, title in {"quadrants": "quadrants", "k3": "k = 3"}.items():
        if name in metrics:
            rows = {row: values[name] for row, values in _compared(metrics).items()}
            parts.append(_by_row(title, rows, SPREAD))
    return parts


def _copies(metrics: dict[str, Any]) -> list[Part]:
    if not (table := named(metrics, "Copies")).rows:
        return []
    return [
        "Share of the patches of an image that one training image explains at the same place; for"
        " new images that copy nothing it is that of test images.",
        table,
    ]


def _attributes(metrics: dict[str, Any]) -> list[Part]:
    rows = metrics.get("attributes")
    if not rows:
        return []
    columns = {
        "classes": "values",
        "majority": "most frequent",
        "codes": "from codes",
        "codes_error": "±",
        "latents": "from latents",
        "latents_error": "±",
    }
    parts: list[Part] = [
        f"Balanced accuracy of linear probes on {metrics['probe_test_images']:,} test images, with"
        " standard errors, from the codes and from the continuous latents.",
        named(metrics, "What codes mean"),
        _by_row("attribute", rows, columns),
    ]
    if rough := [
        f"{name} ({kind})"
        for name, row in rows.items()
        for kind in ("codes", "latents")
        if not row[f"{kind}_converged"]
    ]:
        parts.append(f"Fits stopped before their optimum: {', '.join(rough)}.")
    if scores := metrics["dci"]:
        parts.append(_by_row("DCI", scores, {name: name for name in scores["codes"]}))
    return parts


def _by_row(corner: str, rows: Mapping[str, Mapping[str, Any]], columns: dict[str, str]) -> Table:
    """A table of some figures of each row, by name, and their titles."""
    cells = [(title, *(row[name] for name in columns)) for title, row in rows.items()]
    return Table((corner, *columns.values()), cells)


def _compared(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The metrics of samples and of what they are compared with, by title."""
    baselines = metrics["baselines"]
    return {
        "samples": metrics,
        "training images: real against real": baselines["training images"],
        "averaged pixels of pairs": baselines["averaged pairs"],
    }


def fid_name(metrics: dict[str, Any]) -> str:
    """`FID` of the network that defines it; those of others are not comparable with papers'."""
    network = metrics.get("feature_network", "")
    for other in ("VGG", "AlexNet"):
        if network.startswith(other):
            return f"{other}-FID"
    return "FID"
