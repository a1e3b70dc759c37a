"""PI-VQ against a VQ-VAE with a grid of codes, on photographs of faces, at equal training time.

    python -m benchmarks.faces_peers --data=DIR [--minutes=20] [--only NAME ...] [--seeds SEED ...]

DIR holds aligned photographs named NAME_0001.png (docs/photographs.md), so that
splits are by person; for other names, give --group. Rows:

  matching    the model of --config: sets of codes
  nearest     the same with the nearest entry for each latent: multisets
  vq_vae      `benchmarks.vq_vae`, a convolutional VQ-VAE in PyTorch: an 8x8 grid of 512 entries

All models see the same images in the same order, for the same time, each on one core of the CPU,
also where there is a GPU, and with the malloc of a training (docs/training.md). Two are trained
side by side, each pinned to a core (which requires Linux). Parameters agree within 20 %, and the
losses of reconstruction and their weights are the same, those of the config. There is no
discriminator, as the VQ-VAE has none; other losses of the config are only part of PI-VQ.

The VQ-VAE trains until its time is over. PI-VQ gets the number of steps that fill the time, from a
calibration just before, on the same core: what 60 steps of each phase take, their compilation, and
the codebook's start. The steps of that start and of the warm-up are scaled in proportion. `seconds`
in the table is the time of training as it then was, with all of this and with checkpoints.

All metrics are of 8-bit reconstructions of the test images, by the functions of an evaluation, with
the features of VGG16.

Rows are appended to rows.jsonl in --output as they finish and not repeated, and an interrupted
training of PI-VQ continues, so the same command goes on after an interruption. Each row has the
commit at which its run began: give another --output when what is measured has changed since.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import jax

from benchmarks import vq_vae
from benchmarks.common import markdown, parser_for, training_images
from benchmarks.runs import run
from benchmarks.screen import check_settings, origin, read_rows, run_side_by_side
from pivq_jax.common.memory import TUNABLES
from pivq_jax.common.parallel import make_mesh
from pivq_jax.config import Config, load_config
from pivq_jax.training.build import dataset_from_config, load_networks
from pivq_jax.training.objective import Phase
from pivq_jax.training.steps import Steps

CONFIG = "configs/faces.py"
GROUP = "(.*)_[0-9]+"
PEER = "vq_vae"
TITLES = {
    "matching": "PI-VQ, matching",
    "nearest": "PI-VQ, nearest",
    PEER: "VQ-VAE, 8x8 grid",
}
CALIBRATION_STEPS = 60
CALIBRATION_SECONDS = 30.0  # of each phase at most
LEAST_STEPS = 20
# Columns of the model: title, name in metrics.json, format.
COLUMNS = (
    ("bits", "ceiling_bits", ".0f"),
    ("parameters", "parameters", ",.0f"),
    ("seconds", "train_seconds", ",.0f"),
    ("steps", "step", ",.0f"),
    ("PSNR dB", "psnr", ".2f"),
    ("LPIPS", "lpips", ".4f"),
    ("reconstruction FID", "rfid", ".4f"),
)
Result = TypeVar("Result")


def on_core(core: int, function: Callable[..., Result], *arguments: Any) -> Result:
    """Calls a function in a new process that may use one core only."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        1, mp_context=spawn, initializer=os.sched_setaffinity, initargs=(0, {core})
    ) as pool:
        return pool.submit(function, *arguments).result()


def settings(data: Path, group: str, seed: int) -> dict[str, Any]:
    """The fields that differ from the config in all rows."""
    return {
        "seed": seed,
        "data.name": "image_folder",
        "data.path": str(data.expanduser().absolute()),
        "data.group": group,
        "data.image_size": 64,
        "adversarial.weight": 0.0,
        "adversarial.recombined_weight": 0.0,
        "evaluate.features": "vgg",
        "evaluate.neighbours": 5,
    }


def calibrate(config: Config) -> dict[str, float]:
    """Measures PI-VQ's training on the cores of this process, in seconds.

    `setup` is compilation and the codebook's start; `continuous` and `quantized` are a step each.
    """
    dataset, mesh = dataset_from_config(config), make_mesh()
    lpips, steps = load_networks(config, mesh), Steps(config, mesh)
    state = steps.create()
    images, costs = training_images(config, dataset.train, mesh, config.seed), {"setup": 0.0}
    for phase in (Phase.CONTINUOUS, Phase.QUANTIZED):
        started = time.perf_counter()
        if phase == Phase.QUANTIZED:
            seen = range(config.quantizer.init_batches)
            latents = [steps.latents(state.params, next(images)) for _ in seen]
            state = steps.initialise(state, jax.numpy.stack(latents))
            jax.block_until_ready(state)
        state, metrics = steps.train(state, next(images), lpips, phase)
        jax.block_until_ready((state, metrics))
        costs["setup"] += time.perf_counter() - started
        begun, done, spent = time.perf_counter(), 0, 0.0
        while done < CALIBRATION_STEPS and spent < CALIBRATION_SECONDS:
            state, metrics = steps.train(state, next(images), lpips, phase)
            jax.block_until_ready((state, metrics))
            done, spent = done + 1, time.perf_counter() - begun
        costs[phase.name.lower()] = spent / done
    return costs


def steps_that_fill(seconds: float, config: Config, costs: dict[str, float]) -> dict[str, int]:
    """The fields of a run that takes this time."""
    share = config.quantizer.init_at
    step = share * costs["continuous"] + (1 - share) * costs["quantized"]
    steps = max(LEAST_STEPS, int((seconds - costs["setup"]) / step))
    return {
        "train.steps": steps,
        "train.picture_every": steps + 1,  # none
    }


def measure(
    base: str, name: str, changes: dict[str, Any], seconds: float, workdir: Path, core: int
) -> dict[str, Any]:
    """Trains and evaluates the model of a row; returns its metrics."""
    if name == PEER:
        return on_core(core, vq_vae.run, load_config(base).with_fields(changes), seconds, workdir)
    variant = base
    if name != "matching":
        variant += f"{',' if ':' in base else ':'}{name}"
    config = load_config(variant).with_fields(changes)
    kept = workdir / "calibration.json"  # the same number of steps if the run is continued
    if not kept.exists():
        costs = on_core(core, calibrate, config)
        workdir.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(costs))
    changes = changes | steps_that_fill(seconds, config, json.loads(kept.read_text()))
    return run(variant, changes, workdir, core)


def table(rows: list[dict[str, Any]]) -> str:
    """Formats rows as Markdown, one line per seed."""
    lines = []
    for name, title in TITLES.items():
        for row in sorted((row for row in rows if row["name"] == name), key=lambda r: r["seed"]):
            cells = [format(row[key], how) for _, key, how in COLUMNS]
            lines.append([title, str(row["seed"]), *cells])
    return markdown(["", "seed", *(title for title, _, _ in COLUMNS)], lines)


def main() -> None:
    """Runs what is missing and prints the table."""
    # For all processes that it starts. A training that finds malloc set does not start itself anew.
    os.environ["JAX_PLATFORMS"] = "cpu"
    given = os.environ.get("GLIBC_TUNABLES", "")
    if "glibc.malloc." not in given:
        os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [given, TUNABLES]))
    parser = parser_for(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of aligned photographs")
    parser.add_argument("--config", default=CONFIG, help="of PI-VQ; may include variants")
    parser.add_argument("--group", default=GROUP, help="what the images of one person share")
    parser.add_argument("--minutes", type=float, default=20.0, help="of training, each row")
    parser.add_argument(
        "--only", nargs="+", choices=TITLES, default=list(TITLES), metavar="NAME", help="rows"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="SEED")
    parser.add_argument("--output", type=Path, default=Path("runs/faces_peers"), help="of runs")
    options = parser.parse_args()
    if options.minutes <= 0:
        parser.error("--minutes: give more than 0")
    if not options.data.is_dir():
        parser.error(f"--data={options.data} is not a directory: give that of the photographs")
    of_all = settings(options.data, options.group, 0)
    check_settings(parser, options.output, {"config": options.config} | of_all)

    path = options.output / "rows.jsonl"
    rows = read_rows(path)
    done = {(row["name"], row["minutes"], row["seed"]) for row in rows}
    todo = {
        (name, seed): options.output / f"{name},{options.minutes:g},{seed}"
        for seed in options.seeds
        for name in options.only
        if (name, options.minutes, seed) not in done
    }
    if todo:  # a new folder is prepared once, before several processes open it
        config = load_config(options.config).with_fields(of_all)
        print(dataset_from_config(config).identity, flush=True)

    def finish(name: str, seed: int, workdir: Path, core: int) -> dict[str, Any]:
        changes = settings(options.data, options.group, seed)
        metrics = measure(options.config, name, changes, 60 * options.minutes, workdir, core)
        row = {"name": name, "minutes": options.minutes, "seed": seed}
        return row | {key: metrics[key] for _, key, _ in COLUMNS}

    rows += run_side_by_side(todo, finish, path, lambda row: f"LPIPS {row['lpips']:.4f}")
    rows = [row for row in rows if row["minutes"] == options.minutes]
    print(table(rows))
    print(origin(rows))


if __name__ == "__main__":
    main()
