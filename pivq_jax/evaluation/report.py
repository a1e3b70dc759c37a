"""The evaluation report, `metrics.json` and `report/index.html`, computed stage by stage."""

import dataclasses
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import read_object, write_atomically, write_json
from pivq_jax.common.parallel import own_copy, worst_of_processes
from pivq_jax.common.pictures import curve_chart, grid, save_png
from pivq_jax.evaluation import figures
from pivq_jax.evaluation.evaluator import IMAGES
from pivq_jax.evaluation.html import Part, Picture, Table, page
from pivq_jax.evaluation.prior import TEMPERATURES, describe_prior
from pivq_jax.evaluation.session import Session
from pivq_jax.evaluation.stages import STAGES
from pivq_jax.training.json_lines import METRICS, read_lines

_BELOW = "each above the reconstruction of the training image with most codes in common"
CAPTIONS = {
    "training": f"Averaged weights by step, on at most {IMAGES} validation images and as many"
    " samples.",
    "reconstructions": "Test images, each above its reconstruction.",
    "usage": "Fraction of test images that contain each entry, descending.",
    "samples": "Samples.",
    "parents": "Triples of parent, sample and parent.",
    "many_parents": "Samples of more than two parents.",
    "interpolations": "Interpolations between two images by exchanging codes.",
    "neighbours": "Samples, each followed by the nearest of some training images, their parents"
    " among them.",
    **{f"prior_temperature_{t:g}": f"Drawn at temperature {t:g}, {_BELOW}." for t in TEMPERATURES},
    "prior_recombined": f"Recombined, {_BELOW}.",
    "prior_completions": "Test images from all their codes in the top row; below, from three"
    " quarters, a half and a quarter of them, completed by the prior in two ways each.",
    "atlas": "Code atlas.",
}


def write_report(session: Session) -> dict[str, Any]:
    """Evaluates a model on the test split of its data; returns the content of `metrics.json`.

    Each stage leaves its results and pictures in `report`, so an interrupted evaluation continues
    with the next one.
    """
    model, config, folder = session.model, session.model.config, session.report
    first = jax.process_index() == 0
    seconds = model.progress.get("train_seconds")  # converted weights have none
    metrics: dict[str, Any] = {
        "step": model.step,
        "data": session.whole.identity,
        "image_size": config.data.image_size,
        "num_codes": config.model.num_codes,
        "codebook_size": config.quantizer.codebook_size,
        "parameters": model.num_parameters,
        "train_seconds": seconds,
        "train_images_per_second": (
            model.step * config.train.batch_size / seconds if seconds else None
        ),
    }
    # Everything that the results of a stage depend on, except for the code.
    made_for = {
        "step": model.step,
        "seconds": seconds,
        "weights": _checksum(model.params),
        "data": session.dataset.identity,
        "seed": config.seed,
        "nearest_of": config.sample.nearest_of,
        "factors": {name: list(values) for name, values in session.dataset.factors.items()},
        **dataclasses.asdict(session.settings),
    }
    stages = [(name, stage, made_for) for name, stage in STAGES.items()]
    if model.prior is not None:  # may be trained later, or anew, and concerns no other stage
        stages.append(
            ("prior", describe_prior, made_for | {"prior": _checksum(model.prior.params)})
        )
    pictures: list[str] = []
    left_out: dict[str, str] = {}
    for number, (name, stage, wanted) in enumerate(stages, 1):
        file = folder / f"{name}.json"
        kept = read_object(file)
        held = [folder / f"{picture}.png" for picture in kept.get("pictures", [])]
        # Stages that were left out are tried again, as a missing file may now exist.
        fits = kept.get("made_for") == wanted and isinstance(kept.get("metrics"), dict)
        fits = fits and all(picture.exists() for picture in held)
        if worst_of_processes(not fits):  # shared storage may show them different files
            if first:
                print(f"evaluating, {number} of {len(stages)}: {name}", file=sys.stderr, flush=True)
                file.unlink(missing_ok=True)  # its pictures are replaced one by one
            kept = {"made_for": wanted, **_run(stage, session)}
            if first:
                write_json(file, kept)
        metrics |= kept.get("metrics", {})
        pictures += kept.get("pictures", [])
        if "left_out" in kept:
            left_out[name] = kept["left_out"]
    metrics["left_out"] = left_out
    if first:
        write_json(session.workdir / "metrics.json", metrics)
        if evaluations := read_lines(session.workdir / METRICS, model.step):
            save_png(folder / "training.png", _curves(evaluations))
            pictures.append("training")
        for path in folder.glob("*.png"):
            if path.stem not in pictures:  # from earlier weights
                path.unlink()
        title = f"{config.name}, step {model.step:,}"
        write_atomically(folder / "index.html", page(title, _sections(metrics, folder)).encode())
    return metrics


def _run(stage: Callable[[Session], dict[str, Any]], session: Session) -> dict[str, Any]:
    """Runs a stage: its metrics, or why it is left out; the names of its pictures; the seconds."""
    started, session.pictures = time.perf_counter(), []
    try:
        made: dict[str, Any] = {"metrics": stage(session)}
    except InputError as error:
        made = {"left_out": str(error)}
    seconds = round(time.perf_counter() - started, 1)
    return made | {"pictures": session.pictures, "seconds": seconds}


def _checksum(params: Any) -> int:
    checksum = 0
    for leaf in jax.tree.leaves(own_copy(params)):
        checksum = zlib.crc32(np.asarray(leaf).tobytes(), checksum)
    return checksum


def print_metrics(metrics: dict[str, Any]) -> None:
    """Prints the figures in groups, and what was left out."""
    for title, table in figures.groups(metrics):
        if table.rows:
            print(f"\n{title}\n{figures.text(table)}")
    for stage, reason in metrics["left_out"].items():
        print(f"\nLeft out, {stage}: {reason}")
    print()


def _curves(evaluations: list[dict[str, Any]]) -> np.ndarray:
    """Draws the figures of the evaluations during training by step."""
    charts, span = [], (evaluations[0]["step"], evaluations[-1]["step"])
    for name in (name for name in evaluations[-1] if name != "step"):
        steps, values = zip(*((x["step"], x[name]) for x in evaluations if name in x), strict=True)
        charts.append(curve_chart(name, steps, values, span))
    return grid(np.stack(charts), columns=3)


def _sections(metrics: dict[str, Any], folder: Path) -> dict[str, list[Part]]:
    def pictures(*names: str) -> list[Picture]:
        files = {name: folder / f"{name}.png" for name in names}
        return [Picture(f.read_bytes(), CAPTIONS[name]) for name, f in files.items() if f.exists()]

    sections: dict[str, list[Part]] = {
        "Model": [figures.named(metrics, "Model"), *pictures("training")],
        "Reconstruction": [
            f"Means over {metrics.get('images', 0):,} test images, of output rounded to 8 bits.",
            figures.named(metrics, "Reconstruction"),
            *pictures("reconstructions"),
        ],
        "Codes": [
            "Bits per image over the test split: the ceiling counts all possible codes, the"
            " marginal bits are an upper bound on their entropy.",
            figures.named(metrics, "Codes"),
            *pictures("usage"),
        ],
        "Samples": [
            "Recombined code sets of training images, decoded in one pass.",
            *_distribution(metrics),
            *pictures("samples", "parents", "many_parents", "interpolations", "neighbours"),
        ],
    }
    if "prior_bits" in metrics:
        shared = "codes shared with the nearest training image"
        sections["Prior"] = [
            "The prior bits are an upper bound on those that a set takes under the prior; they"
            " stand beside the marginal and ceiling bits of codes, above.",
            Table(("", ""), [("prior bits", metrics["prior_bits"] or "no test set fits")]),
            figures.by_row(
                *("", metrics["prior_sets"], ("sets", "shared_codes", "copies")),
                titles=("sets", shared, "copies of one"),
            ),
            *pictures(*(name for name in CAPTIONS if name.startswith("prior"))),
        ]
    sections["What codes mean"] = [*_attributes(metrics), *pictures("atlas")]
    if metrics["left_out"]:
        reasons = metrics["left_out"].items()
        sections["Left out"] = [f"{stage}: {reason}" for stage, reason in reasons]
    return sections


def _distribution(metrics: dict[str, Any]) -> list[Part]:
    if "fid" not in metrics:
        return []
    about = (
        f"Against {metrics['real_images']:,} test images, k = {metrics['neighbours']}; real images"
        " against real ones are what new real images reach. Features:"
        f" {metrics['feature_network']}. Images: {metrics['feature_preprocessing']}."
    )
    if figures.fid_name(metrics) != "FID":
        about += " The Fréchet distance of VGG's features is not comparable with the FID of papers."
    parts: list[Part] = [about, figures.distribution(metrics)]
    if "k3" in metrics:
        rows = {title: row["k3"] for title, row in figures.compared(metrics).items()}
        parts.append(figures.by_row("k = 3", rows, figures.SPREAD))
    return parts


def _attributes(metrics: dict[str, Any]) -> list[Part]:
    rows = metrics.get("attributes")
    if not rows:
        return []
    columns = ("classes", "majority", "codes", "codes_error", "latents", "latents_error")
    titles = ("values", "most frequent", "from codes", "±", "from latents", "±")
    parts: list[Part] = [
        f"Balanced accuracy of linear probes on {metrics['probe_test_images']:,} test images, with"
        " standard errors, from the codes and from the continuous latents.",
        figures.named(metrics, "What codes mean"),
        figures.by_row("attribute", rows, columns, titles),
    ]
    if rough := [
        f"{name} ({of})"
        for name, row in rows.items()
        for of in ("codes", "latents")
        if not row[f"{of}_converged"]
    ]:
        parts.append(f"Fits stopped before their optimum: {', '.join(rough)}.")
    if metrics["dci"]:
        scores = ("disentanglement", "completeness", "informativeness")
        parts.append(figures.by_row("DCI", metrics["dci"], scores))
    return parts
