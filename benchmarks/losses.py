"""Measures the effect of the discriminator and of the perceptual loss, from one trained run.

    python -m benchmarks.losses --workdir=runs/toon_faces [--steps=1000]

Starting from the averaged weights of the run, each variant is trained for the same number of steps
with the same data, keys and learning rate: with the losses on pixels and codes alone; with the
perceptual loss; and, without it, with a discriminator of reconstructions, of images decoded from
recombined code sets, or of both. Every 100 steps, measures the PSNR of the averaged weights on 500
validation images and logs the adaptive weight. At the end, measures LPIPS on these images (AlexNet,
and VGG16, which no variant trains with) and compares samples from recombined code sets of training
images with the test images (FID, precision, recall, density and coverage in VGG16 features). Writes
to --output: losses.json, the curves losses.png (with matplotlib) and losses_samples.png with two
rows of parents and one row of samples per variant, in the order of the table.
"""

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import pivq_jax
from benchmarks.common import (
    has,
    labelled,
    parser_for,
    pixels_of,
    pyplot,
    save_figure,
    training_images,
)
from pivq_jax.common.pictures import grid, save_png
from pivq_jax.config import Config
from pivq_jax.data.images import images_to_float
from pivq_jax.data.sources import first_images
from pivq_jax.evaluation.distribution import compare_features
from pivq_jax.evaluation.features import feature_extractor
from pivq_jax.evaluation.reconstruction import (
    decode_batched,
    encode_split,
    images_of,
    reconstruct_split,
)
from pivq_jax.inference import TrainedModel
from pivq_jax.losses.perceptual import load_lpips, lpips
from pivq_jax.sampling import random_parents
from pivq_jax.training.build import (
    dataset_from_config,
    lpips_weights_from_config,
    steps_from_config,
)
from pivq_jax.training.objective import Phase

VARIANTS: dict[str, dict[str, float]] = {
    "pixel losses": {},
    "perceptual": {"loss.perceptual": 0.05},
    "reconstructions judged": {"adversarial.weight": 1.0},
    "recombined sets judged": {"adversarial.recombined_weight": 1.0},
    "both judged": {"adversarial.weight": 0.5, "adversarial.recombined_weight": 0.5},
}
EVERY = 100  # steps between measurements
SHOWN_STEP = 500  # step of the second column of the table
PICTURED = 12  # samples per variant in the picture
VALIDATION_IMAGES = 500


def continue_training(
    base: TrainedModel, config: Config, train: Any, validation: Any
) -> Iterator[tuple[TrainedModel, dict[str, float]]]:
    """Yields the model and its metrics before the first step and after every `EVERY` steps."""
    mesh, batch_size = base.mesh, config.evaluate.batch_size
    steps = steps_from_config(config, mesh)
    lpips = lpips_weights_from_config(config, mesh)
    phase = Phase.ADVERSARIAL if config.adversarial.is_used else Phase.QUANTIZED
    copy = lambda tree: jax.tree.map(jnp.copy, tree)  # noqa: E731 (a step donates its state)
    state = steps.create().replace(params=copy(base.params), ema_params=copy(base.params))
    images = training_images(config, train, mesh, seed=config.seed + 1)
    metrics: dict[str, Any] = {}
    for step in range(config.train.steps + 1):
        if step % EVERY == 0:
            model = TrainedModel(config, mesh, copy(state.ema_params), step, base.progress)
            psnr = reconstruct_split(model, validation, batch_size).psnr
            figures = {"step": step, "psnr": float(np.mean(psnr))}
            yield model, figures | {name: float(value) for name, value in metrics.items()}
        state, metrics = steps.train(state, next(images), lpips, phase)


def plot(curves: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Plots PSNR and the adaptive weight over the steps."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    for name, curve in curves.items():
        left.plot([row["step"] for row in curve], [row["psnr"] for row in curve], label=name)
        weights = [
            (row["step"], row["adaptive_weight"]) for row in curve if "adaptive_weight" in row
        ]
        if weights:
            right.plot(*zip(*weights), label=name)
    left.set(xlabel="steps", ylabel=f"PSNR dB, {VALIDATION_IMAGES} validation images")
    right.set(xlabel="steps", ylabel="adaptive weight", yscale="log")
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    save_figure(figure, path)


def main() -> None:
    """Trains the variants and prints the table."""
    parser = parser_for(__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("runs/toon_faces"))
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--learning_rate", type=float, default=5e-4, help="peak of the schedule")
    parser.add_argument("--augmentations", default="", help="see docs/config.md")
    parser.add_argument("--samples", type=int, default=1_000)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    if options.steps < SHOWN_STEP or options.steps % EVERY:
        parser.error(f"--steps={options.steps}: use a multiple of {EVERY}, at least {SHOWN_STEP}")

    base = pivq_jax.load(options.workdir)
    dataset = dataset_from_config(base.config)
    validation = first_images(dataset.validation, VALIDATION_IMAGES)
    pool, test = first_images(dataset.train, 2_000), pixels_of(dataset.test)
    features = feature_extractor("vgg")
    real = features.extract(test)
    print(f"{jax.devices()[0].device_kind}; {options.workdir} at step {base.step:,}; samples are")
    print(f"compared with {len(test):,} test images; features: {features.network}")

    originals = images_to_float(pixels_of(validation))

    def distance(network: str, rebuilt: np.ndarray) -> float:
        measure = jax.jit(partial(lpips, network=network))
        parts = (jnp.array_split(x, 10) for x in (images_to_float(rebuilt), originals))
        pairs = zip(*parts, strict=True)
        return float(np.mean(np.hstack([measure(load_lpips(network), *pair) for pair in pairs])))

    curves: dict[str, list[dict[str, float]]] = {}
    quality: dict[str, dict[str, float]] = {}
    keys = jax.random.split(jax.random.key(base.config.seed))
    first, second = np.asarray(random_parents(keys[0], options.samples, len(pool))).T
    picture = [images_of(pool, parents[:PICTURED]) for parents in (first, second)]
    for name, changes in VARIANTS.items():
        config = base.config.with_fields(
            {
                "loss.perceptual": 0.0,
                "loss.recombination_warmup": 0.0,  # the model is trained already
                **changes,
                "adversarial.augmentations": options.augmentations,
                "optimizer.learning_rate": options.learning_rate,
                "optimizer.muon_learning_rate": 4 * options.learning_rate,  # as in the config
                "optimizer.warmup_steps": min(50, options.steps // 2),
                "train.steps": options.steps,
            }
        )
        started = time.perf_counter()
        curves[name], model = [], base
        for trained, figures in continue_training(base, config, dataset.train, validation):
            model = trained
            curves[name].append(figures)
            print(
                f"{name:<24} step {figures['step']:>5}  PSNR {figures['psnr']:6.2f} dB"
                f"  adaptive weight {figures.get('adaptive_weight', float('nan')):.4f}",
                flush=True,
            )
        seconds = time.perf_counter() - started
        codes = encode_split(model, pool, config.evaluate.batch_size)
        mixed = np.asarray(model.recombine(codes[first], codes[second], keys[1]))
        samples = decode_batched(model, mixed, config.evaluate.batch_size)
        rebuilt = decode_batched(
            model, encode_split(model, validation, config.evaluate.batch_size), 50
        )
        quality[name] = {
            **{f"lpips {network}": distance(network, rebuilt) for network in ("alex", "vgg")},
            **compare_features(real, features.extract(samples)),
            "seconds": seconds,
        }
        picture.append(samples[:PICTURED])

    print(
        f"\n{'variant':<24} {'PSNR':>6} {f'at {SHOWN_STEP}':>7}",
        *(f"{n:>10}" for n in quality[name]),
    )
    for name, figures in quality.items():
        shown = curves[name][SHOWN_STEP // EVERY]["psnr"]
        values = [f"{value:10.4f}" for value in figures.values()]
        print(f"{name:<24} {curves[name][-1]['psnr']:6.2f} {shown:7.2f}", *values)
    rows = ["parent A", "parent B", *VARIANTS]
    samples_picture = labelled(grid(np.concatenate(picture), PICTURED), [], rows)
    save_png(options.output / "losses_samples.png", samples_picture)
    report = {"workdir": str(options.workdir), "curves": curves, "quality": quality}
    (options.output / "losses.json").write_text(json.dumps(report, indent=1))
    if has("matplotlib"):
        plot(curves, options.output / "losses.png")


if __name__ == "__main__":
    main()
