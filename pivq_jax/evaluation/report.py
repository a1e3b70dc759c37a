"""`metrics.json`: the figures of a trained model on the held-out test split."""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pivq_jax.data.sources import Source
from pivq_jax.evaluation.capacity import capacity
from pivq_jax.evaluation.reconstruction import reconstruct_split
from pivq_jax.files import write_json
from pivq_jax.inference import TrainedModel


def evaluate(model: TrainedModel, test: Source, batch_size: int) -> dict[str, Any]:
    """Reconstruction, capacity and speed over the whole test split, as a flat dictionary.

    `psnr` is the mean over images of each image's PSNR on uint8-rounded output; capacity is
    defined in `evaluation.capacity`. Speeds are in images a second: of training as the run
    recorded it, everything between two steps included; of sampling measured here, see
    `sampling_speed`.
    """
    config = model.config
    result = reconstruct_split(model, test, batch_size)
    seconds = model.progress["train_seconds"]
    return {
        "step": model.step,
        "psnr": float(np.mean(result.psnr)),
        "l1": float(np.mean(result.l1)),
        **capacity(result.codes, config.quantizer.codebook_size, config.quantizer.kind),
        "image_size": config.data.image_size,
        "num_codes": config.model.num_codes,
        "codebook_size": config.quantizer.codebook_size,
        "parameters": model.num_parameters,
        "train_seconds": seconds,
        "train_images_per_second": model.step * config.train.batch_size / seconds,
        "sample_images_per_second": sampling_speed(model, result.codes, batch_size),
    }


def sampling_speed(model: TrainedModel, codes: np.ndarray, batch_size: int) -> float:
    """Recombined and decoded images a second: the median of ten batches, compilation apart."""
    batch = jax.numpy.asarray(np.resize(codes, (batch_size, codes.shape[1])))
    times = []
    for i in range(11):
        started = time.perf_counter()
        mixed = model.recombine(batch, batch[::-1], jax.random.key(i))
        jax.block_until_ready(model.decode(mixed))
        times.append(time.perf_counter() - started)
    return batch_size / float(np.median(times[1:]))


def write_metrics(workdir: Path, metrics: dict[str, Any]) -> None:
    """Write `metrics.json` and print its figures."""
    write_json(workdir / "metrics.json", metrics)
    for name, value in metrics.items():
        print(f"  {name:<26} {value:.4f}" if isinstance(value, float) else f"  {name:<26} {value}")
