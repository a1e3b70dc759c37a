"""What each `--mode` does: train, evaluate, sample, interpolate, reconstruct."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pivq_jax.check_config import check_workdir
from pivq_jax.data.images import images_to_float, list_images, load_image
from pivq_jax.errors import InputError
from pivq_jax.evaluation.pictures import (
    grid,
    interpolation_grid,
    reconstruction_grid,
    sample_grid,
    save_png,
)
from pivq_jax.evaluation.reconstruction import decode_batched, encode_split
from pivq_jax.evaluation.report import evaluate, write_metrics
from pivq_jax.files import write_json
from pivq_jax.inference import load
from pivq_jax.sampling import random_pairs
from pivq_jax.train import dataset_from_config, train

# Parents are drawn from so many training images; encoding them takes seconds on a CPU.
PARENT_POOL = 1_000


def run(mode: str, config: Any, workdir: Path) -> None:
    """Run `mode` (any but `reconstruct`); `train` is followed by the others.

    Raises:
        InputError: no data, no trained model, or a workdir of another config.
        Interrupted, FloatingPointError: see `train`.
    """
    if mode == "train":
        train(config, workdir)
    opened = _Opened(config, workdir)
    for name, write in _WRITERS.items():
        if mode in (name, "train"):
            write(opened)


class _Opened:
    """A trained model with its data; what several modes need is made once."""

    def __init__(self, config: Any, workdir: Path) -> None:
        check_workdir(config, workdir)
        self.config, self.workdir = config, workdir
        self.model = load(workdir)
        self.dataset = dataset_from_config(config)
        self.scale = max(1, 128 // config.data.image_size)

    @cached_property
    def parents(self) -> list[np.ndarray]:
        """Training images, uint8 [H, W, 3] each."""
        train = self.dataset.train
        return [train[i]["image"] for i in range(min(PARENT_POOL, len(train)))]

    @cached_property
    def parent_codes(self) -> np.ndarray:
        """int32 [M, N]."""
        pool = [{"image": image} for image in self.parents]
        return encode_split(self.model, pool, self.config.evaluate.batch_size)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes int32 [M, N] -> images uint8 [M, H, W, 3], in batches of one shape."""
        return decode_batched(self.model, codes, self.config.evaluate.batch_size)

    def save(self, name: str, picture: np.ndarray) -> None:
        """Write a picture into the workdir."""
        if jax.process_index() == 0:
            save_png(self.workdir / name, picture)
            print(f"wrote {self.workdir / name}", flush=True)


def _evaluate(opened: _Opened) -> None:
    """`metrics.json` and `reconstructions.png` of the test split."""
    model, test = opened.model, opened.dataset.test
    print(f"evaluating step {model.step} on {len(test):,} test images", flush=True)
    write_metrics(opened.workdir, evaluate(model, test, opened.config.evaluate.batch_size))
    originals = np.stack([test[i]["image"] for i in range(min(32, len(test)))])
    codes = np.asarray(model.encode(images_to_float(originals)))
    picture = reconstruction_grid(originals, opened.decode(codes), columns=8, scale=opened.scale)
    opened.save("reconstructions.png", picture)


def _sample(opened: _Opened) -> None:
    """`samples.png`: recombined code sets; `parents.png`: some of them between their parents."""
    settings, codes = opened.config.sample, opened.parent_codes
    key_pairs, key_mix = jax.random.split(jax.random.key(opened.config.seed))
    first, second = np.asarray(random_pairs(key_pairs, settings.count, len(codes))).T
    mixed = opened.model.recombine(codes[first], codes[second], key_mix, settings.fraction)
    samples = opened.decode(np.asarray(mixed))
    opened.save("samples.png", grid(samples, columns=8, scale=opened.scale))
    shown = min(24, len(samples))
    parents_a, parents_b = (
        np.stack([opened.parents[i] for i in side[:shown]]) for side in (first, second)
    )
    triples = sample_grid(parents_a, parents_b, samples[:shown], scale=opened.scale)
    opened.save("parents.png", triples)


def _interpolate(opened: _Opened) -> None:
    """`interpolations.png`: a row a pair of images, exchanging codes from left to right."""
    settings, codes = opened.config.sample, opened.parent_codes
    key = jax.random.fold_in(jax.random.key(opened.config.seed), 1)
    first, second = np.asarray(random_pairs(key, settings.interpolations, len(codes))).T
    paths = np.asarray(opened.model.interpolate(codes[first], codes[second], settings.steps))
    images = opened.decode(paths.reshape(-1, paths.shape[-1]))
    rows = images.reshape(settings.steps, len(first), *images.shape[1:])
    opened.save("interpolations.png", interpolation_grid(rows, scale=opened.scale))


_WRITERS: dict[str, Callable[[_Opened], None]] = {
    "evaluate": _evaluate,
    "sample": _sample,
    "interpolate": _interpolate,
}


def reconstruct(config: Any, workdir: Path, source: Path, target: Path) -> None:
    """Every image of a folder through the model: PNG files, and their codes in `codes.json`.

    Files that cannot be read are named and skipped.

    Raises:
        InputError: no folder, no readable image in it, or no trained model.
    """
    paths = list_images(source)
    check_workdir(config, workdir)
    model = load(workdir)
    batch_size, codes = config.evaluate.batch_size, {}
    for start in range(0, len(paths), batch_size):
        readable = {}
        for path in paths[start : start + batch_size]:
            try:
                readable[path.relative_to(source)] = load_image(path, config.data.image_size)
            except InputError as error:
                print(f"skipped: {error}", flush=True)
        if not readable:
            continue
        images = [{"image": image} for image in readable.values()]
        found = encode_split(model, images, batch_size)
        decoded = decode_batched(model, found, batch_size)
        for name, image, row in zip(readable, decoded, found.tolist(), strict=True):
            save_png(target / name.parent / f"{name.name}.png", image)
            codes[name.as_posix()] = row
    if not codes:
        raise InputError(f"no readable image in {source}: see the lines above")
    write_json(target / "codes.json", codes)
    print(f"{len(codes):,} images and codes.json in {target}")
