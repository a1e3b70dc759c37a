"""What each `--mode` does: train, evaluate, sample, interpolate, reconstruct."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pivq_jax.check_config import check_workdir
from pivq_jax.data.images import images_to_float, images_to_uint8, list_images, load_image
from pivq_jax.errors import InputError
from pivq_jax.evaluation.pictures import (
    grid,
    interpolation_grid,
    reconstruction_grid,
    sample_grid,
    save_png,
)
from pivq_jax.evaluation.reconstruction import encode_split
from pivq_jax.evaluation.report import evaluate, write_metrics
from pivq_jax.files import write_json
from pivq_jax.inference import TrainedModel, load
from pivq_jax.sampling import random_pairs
from pivq_jax.train import dataset_from_config, train

# Parents are drawn from so many training images; encoding them takes seconds on a CPU.
PARENT_POOL = 1_000


def run_train(config: Any, workdir: Path) -> None:
    """Train, then evaluate, sample and interpolate."""
    train(config, workdir)
    run_evaluate(config, workdir)
    run_sample(config, workdir)
    run_interpolate(config, workdir)


def run_evaluate(config: Any, workdir: Path) -> None:
    """`metrics.json` and `reconstructions.png` of the test split."""
    model, dataset = _load(config, workdir), dataset_from_config(config)
    print(f"evaluating step {model.step} on {len(dataset.test):,} test images", flush=True)
    write_metrics(workdir, evaluate(model, dataset, config.evaluate.batch_size))
    originals = _first_images(dataset.test, 32)
    reconstructions = _decode(model, model.encode(images_to_float(originals)))
    _save(
        workdir / "reconstructions.png",
        reconstruction_grid(originals, reconstructions, columns=8, scale=_scale(config)),
    )


def run_sample(config: Any, workdir: Path) -> None:
    """`samples.png`: recombined code sets; `parents.png`: the same between their parents."""
    model, codes, images = _parents(config, workdir)
    key_pairs, key_mix = jax.random.split(jax.random.key(config.seed))
    pairs = np.asarray(random_pairs(key_pairs, config.sample.count, len(codes)))
    mixed = model.recombine(codes[pairs[:, 0]], codes[pairs[:, 1]], key_mix, config.sample.fraction)
    samples = _decode(model, mixed)
    scale = _scale(config)
    _save(workdir / "samples.png", grid(samples, columns=8, scale=scale))
    shown = pairs[:24]
    parents_a, parents_b = (np.stack([images[i]["image"] for i in side]) for side in shown.T)
    triples = sample_grid(parents_a, parents_b, samples[: len(shown)], scale=scale)
    _save(workdir / "parents.png", triples)


def run_interpolate(config: Any, workdir: Path) -> None:
    """`interpolations.png`: a row a pair of images, exchanging codes from left to right."""
    model, codes, _ = _parents(config, workdir)
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    pairs = np.asarray(random_pairs(key, config.sample.interpolations, len(codes)))
    steps = config.sample.steps
    paths = model.interpolate(codes[pairs[:, 0]], codes[pairs[:, 1]], steps)
    images = _decode(model, paths.reshape(-1, paths.shape[-1]))
    rows = images.reshape(steps, len(pairs), *images.shape[1:])
    _save(workdir / "interpolations.png", interpolation_grid(rows, scale=_scale(config)))


def run_reconstruct(config: Any, workdir: Path, source: str | None, target: str | None) -> None:
    """Every image of a folder through the model: PNG files, and their codes in `codes.json`.

    Files that cannot be read are named and skipped.
    """
    if not source:
        raise InputError("--mode=reconstruct needs the folder of images: give --input=DIR")
    output = Path(target) if target else workdir / "reconstructed"
    model = _load(config, workdir)
    size, batch_size = config.data.image_size, config.evaluate.batch_size
    root = Path(source)
    codes: dict[str, list[int]] = {}
    pending: list[tuple[Path, np.ndarray]] = []

    def flush() -> None:
        if not pending:
            return
        images = np.stack([image for _, image in pending])
        # One shape, so that the last batch does not compile anew.
        filled = np.resize(images, (batch_size, *images.shape[1:]))
        found = model.encode(images_to_float(filled))
        decoded = _decode(model, found)
        for (path, _), image, row in zip(pending, decoded, np.asarray(found).tolist()):
            name = path.relative_to(root)
            save_png(output / name.parent / f"{name.name}.png", image)
            codes[name.as_posix()] = row
        pending.clear()

    for path in list_images(source):
        try:
            pending.append((path, load_image(path, size)))
        except ValueError as error:
            print(f"skipped: {error}", flush=True)
        if len(pending) == batch_size:
            flush()
    flush()
    if not codes:
        raise InputError(f"no readable image in {source}: see the lines above")
    write_json(output / "codes.json", codes)
    print(f"{len(codes):,} images and codes.json in {output}")


MODES: dict[str, Callable[[Any, Path], None]] = {
    "train": run_train,
    "evaluate": run_evaluate,
    "sample": run_sample,
    "interpolate": run_interpolate,
}


def _load(config: Any, workdir: Path) -> TrainedModel:
    check_workdir(config, workdir)
    return load(workdir)


def _parents(config: Any, workdir: Path) -> tuple[TrainedModel, np.ndarray, Any]:
    model, images = _load(config, workdir), dataset_from_config(config).train
    pool = [images[i] for i in range(min(PARENT_POOL, len(images)))]
    return model, encode_split(model, pool, config.evaluate.batch_size), pool


def _first_images(source: Any, count: int) -> np.ndarray:
    return np.stack([source[i]["image"] for i in range(min(count, len(source)))])


def _decode(model: TrainedModel, codes: jax.Array) -> np.ndarray:
    return np.asarray(images_to_uint8(model.decode(codes)))


def _scale(config: Any) -> int:
    return max(1, 128 // config.data.image_size)


def _save(path: Path, picture: np.ndarray) -> None:
    if jax.process_index() == 0:
        save_png(path, picture)
        print(f"wrote {path}", flush=True)
