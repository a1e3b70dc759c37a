"""Measures the throughput of the input pipeline, relative to that of training.

    python -m benchmarks.input_pipeline [--config=configs/toon_faces.py] [--workers=0,1,2]

Prepares pictures, then reads batches of them as in training: flipped, with the batch size of the
config, by threads of this process (0 workers) or by worker processes. `cached` keeps decoded images
in memory, as training does for splits of up to 2 GiB; worker processes never do. The last column is
relative to the training step of the config, measured here on batches in memory.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from benchmarks.common import milliseconds_in_turns, parser_for
from pivq_jax.common.parallel import make_mesh, put_batch
from pivq_jax.config import Config, load_config
from pivq_jax.data.pipeline import train_batches
from pivq_jax.data.prepare import prepare_dataset
from pivq_jax.data.records import set_directory
from pivq_jax.data.sources import RecordSource
from pivq_jax.training.build import load_networks
from pivq_jax.training.objective import phase_at
from pivq_jax.training.steps import Steps


def photograph(seed: int, size: int) -> Image.Image:
    """Smooth shapes on two scales with a little noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(0, 3, (size, size, 3))
    for side, weight in ((4, 0.6), (size // 4, 0.2)):
        layer = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
        pixels += weight * np.asarray(layer.resize((size, size), Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def make_records(folder: Path, size: int, count: int, workers: int) -> Any:
    """Returns a builder of prepared pictures; prints the preparation time and their size."""
    import tensorflow_datasets as tfds

    source = folder / f"source_{size}"
    source.mkdir()
    for i in range(count):
        photograph(i, size).save(source / f"{i}.png", compress_level=1)
    started = time.perf_counter()
    prepare_dataset("image_folder", source, size, output=folder, workers=workers)
    seconds = time.perf_counter() - started
    directory = set_directory(folder, "image_folder", size)
    weight = sum(file.stat().st_size for file in directory.glob("*.array_record*")) / count
    print(
        f"{size} px: {count} images prepared in {seconds:.1f} s by {workers} processes, including"
        f" their start; {weight / 1024:.0f} KiB per image",
        flush=True,
    )
    return tfds.builder_from_directory(directory)


def images_a_second(batches: Iterator[Any], skip: int, seconds: float) -> float:
    """Images per second of a stream of batches, after `skip` of them, measured for `seconds`."""
    for _ in range(skip):
        next(batches)
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        count += len(next(batches)["image"])
    return count / passed


def step_images_a_second(config: Config) -> float:
    """Images per second of the training step of the last phase; the median of 20 steps."""
    mesh = make_mesh(config.mesh.fsdp)
    functions = Steps(config, mesh)
    state, lpips = functions.create(), load_networks(config, mesh)
    pictures = [photograph(i, config.data.image_size) for i in range(config.train.batch_size)]
    images = put_batch(np.stack([np.asarray(picture) for picture in pictures]), mesh)
    phase = phase_at(config, config.train.steps - 1)

    def step() -> None:
        nonlocal state
        state, metrics = functions.train(state, images, lpips, phase)
        jax.block_until_ready(metrics)

    return len(pictures) / milliseconds_in_turns({"step": step}, 20)["step"] * 1e3


def main() -> None:
    """Prints the table."""
    parser = parser_for(__doc__)
    parser.add_argument("--config", default="configs/toon_faces.py")
    parser.add_argument("--workers", default="0,1,2", help="numbers of processes to try")
    parser.add_argument("--sizes", default="64,128,256", help="heights and widths in pixels")
    parser.add_argument("--images", type=int, default=512, help="number of pictures of each size")
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of each measurement")
    options = parser.parse_args()
    workers = [int(number) for number in options.workers.split(",")]

    config = load_config(options.config)
    step = step_images_a_second(config)
    print(f"{options.config}: the training step processes {step:.0f} images/s", flush=True)
    with tempfile.TemporaryDirectory() as name:
        for size in map(int, options.sizes.split(",")):
            builder = make_records(Path(name), size, options.images, max(1, *workers))
            print(f"{'size':>5} {'images':<9} {'workers':>7} {'images/s':>9} {'x step':>7}")
            for cached, count in [(True, 0), *((False, count) for count in workers)]:
                limit = 2**31 if cached else 0
                source = RecordSource(builder, "train", size, memory_limit=limit)
                size_of_batch = config.train.batch_size
                batches = train_batches(
                    source, batch_size=size_of_batch, seed=0, flip=True, workers=count
                )
                warm_up = 2 * len(source) // size_of_batch if cached else 8
                with contextlib.closing(batches):
                    speed = images_a_second(batches, warm_up, options.seconds)
                label = "cached" if cached else "decoded"
                print(f"{size:5} {label:<9} {count:7} {speed:9.0f} {speed / step:7.1f}", flush=True)


if __name__ == "__main__":
    main()
