"""The evaluation report, `metrics.json` and `report/index.html`, computed stage by stage."""

import dataclasses
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict

import pivq_jax
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import read_object, write_atomically, write_json
from pivq_jax.common.json_lines import METRICS, read_lines
from pivq_jax.common.parallel import max_over_processes, print_once
from pivq_jax.common.params import checksum
from pivq_jax.common.pictures import Pixels, curve_chart, grid, save_png
from pivq_jax.config import Config
from pivq_jax.evaluation.figures import CAPTIONS, print_metrics, sections
from pivq_jax.evaluation.html import Lines, Part, Table, page
from pivq_jax.evaluation.session import Session, alex_weights
from pivq_jax.evaluation.stages import STAGES
from pivq_jax.evaluation.verdict import verdict
from pivq_jax.inference.opening import warn_of_other_data


class Stage(NamedTuple):
    """A stage that is not one of `STAGES`."""

    run: Callable[[Session], dict[str, Any]]
    depends_on: dict[str, Any]  # besides the model and its data


def evaluate_model(session: Session, more: Mapping[str, Stage] = MappingProxyType({})) -> None:
    """Writes a report, with `more` stages, and says on what and where it is."""
    model, workdir = session.model, session.workdir
    print_once(f"evaluating step {model.step} on {len(session.dataset.test):,} test images")
    if model.progress.get("codebook") == "fitted":
        start = model.config.init_step
        print_once(f"its codebook is fitted to its latents; it is trained from step {start} on")
    warn_of_other_data(model, session.whole)
    metrics = write_report(session, more)
    if jax.process_index() == 0:
        print_metrics(metrics)
    print_once(
        f"open {workdir / 'report' / 'index.html'}; all figures are in {workdir / 'metrics.json'}"
    )


def write_report(
    session: Session, more: Mapping[str, Stage] = MappingProxyType({})
) -> dict[str, Any]:
    """Evaluates a model on the test split of its data; returns the content of `metrics.json`.

    Each stage leaves its results and pictures in `report`, so an interrupted evaluation continues
    with the next one. Those of `more` stages, by name, are left out of a report without them.
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
    settings = dataclasses.asdict(session.settings)
    del settings["every"], settings["share"]  # of evaluations during training
    # Everything that the results of a stage depend on, except for the code.
    made_for = {
        "step": model.step,
        "seconds": seconds,
        "weights": checksum(model.params),
        "data": session.dataset.identity,
        "seed": config.seed,
        "sample": [config.sample.fraction, config.sample.spread, config.sample.nearest_of],
        "factors": {name: list(values) for name, values in session.dataset.factors.items()},
        "lpips_path": alex_weights(config.loss),
        **settings,
    }
    stages = [(name, stage, made_for) for name, stage in STAGES.items()]
    stages += [(name, stage.run, made_for | stage.depends_on) for name, stage in more.items()]
    pictures: list[str] = []
    left_out: dict[str, str] = {}
    for number, (name, stage, wanted) in enumerate(stages, 1):
        file = folder / f"{name}.json"
        kept = read_object(file)
        again = not _holds(kept, wanted, folder)
        if max_over_processes(again):  # shared storage may show them different files
            if first:
                print(f"evaluating, {number} of {len(stages)}: {name}", file=sys.stderr, flush=True)
                file.unlink(missing_ok=True)  # its pictures are replaced one by one
            kept = {"made_for": wanted, **_run(stage, session)}
            if first:
                write_json(file, kept)
        metrics |= kept.get("metrics", {})
        pictures += kept["pictures"]
        if "left_out" in kept:
            left_out[name] = kept["left_out"]
    metrics["left_out"] = left_out
    if first:
        write_json(session.workdir / "metrics.json", metrics)
        if evaluations := read_lines(session.workdir / METRICS, model.step):
            save_png(folder / "training.png", _curves(evaluations))
            pictures.append("training")
        for name in CAPTIONS.keys() - pictures:  # from earlier weights
            (folder / f"{name}.png").unlink(missing_ok=True)
        title = f"{config.name}, step {model.step:,}"
        shown: dict[str, list[Part]] = {"Verdict": [*verdict(metrics)]}
        shown["Command and config"] = _origin(config)
        html = page(title, shown | sections(metrics, folder))
        write_atomically(folder / "index.html", html.encode())
    return metrics


def _holds(kept: dict[str, Any], wanted: dict[str, Any], folder: Path) -> bool:
    """Whether what is kept of a stage is what is wanted, with its pictures.

    Stages that were left out are tried again, as a missing file may now exist.
    """
    pictures = kept.get("pictures")
    if kept.get("made_for") != wanted or not isinstance(kept.get("metrics"), dict):
        return False
    return isinstance(pictures, list) and all((folder / f"{x}.png").exists() for x in pictures)


def _run(stage: Callable[[Session], dict[str, Any]], session: Session) -> dict[str, Any]:
    """Runs a stage: its metrics, or why it is left out; the names of its pictures; the seconds."""
    started, session.pictures = time.perf_counter(), []
    try:
        outcome: dict[str, Any] = {"metrics": stage(session)}
    except InputError as error:
        outcome = {"left_out": str(error)}
    seconds = round(time.perf_counter() - started, 1)
    return outcome | {"pictures": session.pictures, "seconds": seconds}


def _origin(config: Config) -> list[Part]:
    """The command and the versions that wrote a page, and the config of its model."""
    fields = flatten_dict(config.to_dict(), sep=".")
    return [
        "This page was written by:",
        Lines(shlex.join(["python", *sys.orig_argv[1:]])),
        Table(("", ""), [("pivq_jax", pivq_jax.__version__), ("jax", jax.__version__)]),
        "The config of the model and of its evaluation:",
        Lines("\n".join(f"{name} = {value!r}" for name, value in fields.items())),
    ]


def _curves(evaluations: list[dict[str, Any]]) -> Pixels:
    """Draws the figures of the evaluations during training by step."""
    charts, span = [], (evaluations[0]["step"], evaluations[-1]["step"])
    for name in (name for name in evaluations[-1] if name != "step"):
        steps, values = zip(*((x["step"], x[name]) for x in evaluations if name in x), strict=True)
        charts.append(curve_chart(name, steps, values, span))
    return grid(np.stack(charts), columns=3)
