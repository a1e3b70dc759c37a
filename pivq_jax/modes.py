"""What each `--mode` does: train, evaluate, sample, interpolate, reconstruct."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import jax
import numpy as np

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import write_json
from pivq_jax.common.parallel import say
from pivq_jax.common.pictures import grid, interpolation_grid, magnification, save_png
from pivq_jax.config.check import check_workdir
from pivq_jax.config.fields import Config
from pivq_jax.data.images import list_images, load_image
from pivq_jax.data.sources import First, Source
from pivq_jax.evaluation.features import feature_extractor
from pivq_jax.evaluation.reconstruction import decode_batched, encode_split
from pivq_jax.evaluation.report import print_metrics, write_report
from pivq_jax.evaluation.samples import sample_paths, sample_recombined
from pivq_jax.evaluation.stages import Settings
from pivq_jax.inference import load
from pivq_jax.training.build import dataset_from_config
from pivq_jax.training.loop import train
from pivq_jax.training.stopping import end_on_sigterm

# Parents are drawn from so many training images; encoding them takes seconds on a CPU.
PARENT_POOL = 1_000
SHOWN = 24  # samples between their parents


def run(mode: str, config: Config, workdir: Path) -> None:
    """Run `mode` (any but `reconstruct`); `train` is followed by the others.

    Raises:
        InputError: no data, no trained model, a workdir of another config, or no weights of the
            network that the evaluation needs.
        Interrupted, FloatingPointError: see `train`.
    """
    if mode == "train":
        settings = config.evaluate
        if (settings.features, settings.features_path) != ("vgg", ""):
            # So that weights which are missing are told before hours of training.
            feature_extractor(settings.features, settings.features_path)
        train(config, workdir)
    end_on_sigterm()
    opened = _Opened(config, workdir)
    for name, write in _WRITERS.items():
        if mode in (name, "train"):
            write(opened)


class _Opened:
    """A trained model with its data; what several modes need is made once."""

    def __init__(self, config: Config, workdir: Path) -> None:
        check_workdir(config, workdir)
        self.config, self.workdir = config, workdir
        self.model = load(workdir)
        self.dataset = dataset_from_config(config)
        self.scale = magnification(config.data.image_size)

    @cached_property
    def parents(self) -> Source:
        """Training images."""
        return First(self.dataset.train, PARENT_POOL)

    @cached_property
    def parent_codes(self) -> np.ndarray:
        """int32 [M, N]."""
        return encode_split(self.model, self.parents, self.config.evaluate.batch_size)

    def save(self, name: str, picture: np.ndarray) -> None:
        """Write a picture into the workdir."""
        if jax.process_index() == 0:
            save_png(self.workdir / name, picture)
            print(f"wrote {self.workdir / name}", flush=True)


def _evaluate(opened: _Opened) -> None:
    """`metrics.json` and `report/` of the test split."""
    model, dataset, workdir = opened.model, opened.dataset, opened.workdir
    say(f"evaluating step {model.step} on {len(dataset.test):,} test images")
    loss = opened.config.loss
    lpips_path = loss.perceptual_weights if loss.perceptual_network == "alex" else ""
    settings = Settings(**opened.config.evaluate, lpips_path=lpips_path)
    metrics = write_report(model, dataset, settings, workdir)
    if jax.process_index() == 0:
        print_metrics(metrics)
    say(f"wrote {workdir / 'metrics.json'} and {workdir / 'report' / 'index.html'}")


def _sample(opened: _Opened) -> None:
    """`samples.png`: recombined code sets; `parents.png`: some of them between their parents."""
    settings, config = opened.config.sample, opened.config
    found = sample_recombined(
        opened.model,
        opened.parent_codes,
        settings.count,
        config.seed,
        config.evaluate.batch_size,
        fraction=settings.fraction,
    )
    opened.save("samples.png", grid(found.images, columns=8, scale=opened.scale))
    opened.save("parents.png", found.between_parents(opened.parents, SHOWN))


def _interpolate(opened: _Opened) -> None:
    """`interpolations.png`: a row a pair of images, exchanging codes from left to right."""
    settings, config = opened.config.sample, opened.config
    found = sample_paths(
        opened.model,
        opened.parent_codes,
        settings.interpolations,
        settings.steps,
        config.seed,
        config.evaluate.batch_size,
    )
    opened.save("interpolations.png", interpolation_grid(found.images, scale=opened.scale))


_WRITERS: dict[str, Callable[[_Opened], None]] = {
    "evaluate": _evaluate,
    "sample": _sample,
    "interpolate": _interpolate,
}


def reconstruct(config: Config, workdir: Path, source: Path, target: Path) -> None:
    """Every image of a folder through the model: PNG files, and their codes in `codes.json`.

    Files that cannot be read are named and skipped.

    Raises:
        InputError: no folder, no readable image in it, or no trained model.
    """
    end_on_sigterm()
    paths = list_images(source)
    check_workdir(config, workdir, writes=False)
    model, writes = load(workdir), jax.process_index() == 0
    batch_size, codes = config.evaluate.batch_size, {}
    for start in range(0, len(paths), batch_size):
        readable = {}
        for path in paths[start : start + batch_size]:
            try:
                readable[path.relative_to(source)] = load_image(path, config.data.image_size)
            except InputError as error:
                say(f"skipped: {error}")
        if not readable:
            continue
        images = [{"image": image} for image in readable.values()]
        found = encode_split(model, images, batch_size)
        decoded = decode_batched(model, found, batch_size)
        for name, image, row in zip(readable, decoded, found.tolist(), strict=True):
            if writes:
                save_png(target / name.parent / f"{name.name}.png", image)
            codes[name.as_posix()] = row
    if not codes:
        raise InputError(f"no readable image in {source}: see the lines above")
    if writes:
        write_json(target / "codes.json", codes)
    say(f"{len(codes):,} images and codes.json in {target}")
