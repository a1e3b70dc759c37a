"""What can be reached without a model: samples and reconstructions, judged as in an evaluation.

    python -m benchmarks.baselines --config=faces --data=DIR [--bits=1024] [--minutes=30]

New images are made of training images, three draws of --samples each, from the pixels of two of
them (averaged, joined along a random line through the middle, hard or by a sigmoid of 3 pixels) or
from their principal components (512, of which half are exchanged at random; or the first eight of
one image, and all the rest of the other). The parents are any two, or matched: the second one is
the one of 64 random images that differs least near the line. Tables have the mean of the draws
and, in brackets, the least and the largest value.

Reconstructions are of test images: principal components, one for every two bits, and these
quantized to --bits (slots of eight components, each with two residual k-means of 256 entries); and
JPEG, WebP and AVIF (where Pillow has it) with at most --bits of payload a file in the mean, or
their smallest files, as in `benchmarks.compression`.

Metrics are those of docs/metrics.md, with the features of VGG16, against the test images, of which
--real are used (all by default). The copied share is of the first 500 images, over all training
images; `test images` is its reference.

With --minutes, two peers are trained for that time each (`benchmarks.vq_vae`), a VQ-VAE with a grid
of codes and one with residual codes, both with --bits an image. Their samples exchange the codes
at half of the places of any two images.

Rows are appended to rows.jsonl in --output as they are measured, and not repeated.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import features

from benchmarks import components, compression, pixels
from benchmarks.common import commit, lpips_of, markdown, parser_for, pixels_of
from pivq_jax.common.psnr import psnr
from pivq_jax.config import Config, load_config
from pivq_jax.data.sources import first_images
from pivq_jax.evaluation.copies import COPIES, copied_share, mean_share
from pivq_jax.evaluation.features import FeatureExtractor, Features, feature_extractor
from pivq_jax.evaluation.frechet import frechet_distance
from pivq_jax.evaluation.prdc import compare_images
from pivq_jax.inference import POOL_IMAGES
from pivq_jax.training.build import dataset_from_config

DRAWS = 3
COMPONENTS = 512  # whose halves are exchanged
COARSE = 8  # components that are taken from one image
FORMATS = {"JPEG": "jpg", "WEBP": "webp", "AVIF": "avif"}  # by their names in `features`
SPREAD = ("precision", "recall", "density", "coverage")


class Judge:
    """The images of a config, and the figures of others beside them."""

    def __init__(self, config: Config, samples: int, real: int | None, bits: int) -> None:
        dataset = dataset_from_config(config)
        print(dataset.identity, flush=True)
        self.config, self.samples, self.dataset = config, samples, dataset
        test = first_images(dataset.test, real or len(dataset.test))
        self.train, self.test = pixels_of(dataset.train), pixels_of(test)
        self.pool = self.train[:POOL_IMAGES]  # of parents, as in an evaluation
        self.most = max(COMPONENTS, bits // 2)
        self.extractor: FeatureExtractor = feature_extractor("vgg")

    @cached_property
    def real(self) -> Features:
        """The features of the test images."""
        return self.extractor.extract_all(self.test)

    @cached_property
    def components(self) -> components.Components:
        """Components of the pool, and of its mirror images if training sees them."""
        return components.fit(self.pool, self.most, self.config.data.flip)

    def copied(self, images: np.ndarray) -> float | None:
        """The mean copied share of the first images."""
        return mean_share(copied_share(images[:COPIES], [self.train]))

    def new(self, images: np.ndarray, copied: bool = True) -> dict[str, Any]:
        """The figures of samples; those of training images are copies of themselves."""
        found = compare_images(self.real, self.extractor.extract_all(images))
        return found | ({"copied_share": self.copied(images)} if copied else {})

    def rebuilt(self, images: np.ndarray, bits: float | None) -> dict[str, Any]:
        """The figures of reconstructed test images."""
        return {
            "bits": bits,
            "psnr": float(psnr(images, self.test, 255.0).mean()),
            "lpips": lpips_of(images, self.test, self.extractor.batch_size),
            "rfid": frechet_distance(self.real.whole, self.extractor.extract(images)),
        }


def new_images(judge: Judge, draw: int) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """The rows of samples of one draw, by name."""
    pool, count, side = judge.pool, judge.samples, judge.pool.shape[1]
    rng = np.random.default_rng(draw)
    first, second = pixels.pairs_of(rng, count, len(pool)).T
    line = pixels.lines(rng, count, side)
    train = rng.permutation(len(judge.train))[:count]
    kept = rng.random((count, COMPONENTS)) < 0.5

    def joined(share: np.ndarray | float, near: bool) -> dict[str, Any]:
        own = np.random.default_rng((draw, 1))
        other = pixels.matched(own, pool, first, line) if near else second
        return judge.new(pixels.mix(pool[first], pool[other], share))

    def half() -> dict[str, Any]:
        found = judge.components.first(COMPONENTS)
        a, b = (found.transform(pool[x]) for x in (first, second))
        return judge.new(found.images(np.where(kept, a, b), pool))

    def coarse() -> dict[str, Any]:
        few = judge.components.first(COARSE).basis
        a, b = (pool[x].reshape(count, -1).astype(np.float32) for x in (first, second))
        made = np.rint(np.clip(b + (a - b) @ few @ few.T, 0, 255)).astype(np.uint8)
        return judge.new(made.reshape(pool[first].shape))

    hard = (line > 0).astype(np.float32)
    yield "training images", lambda: judge.new(judge.train[train], copied=False)
    yield "pixels averaged, any two", lambda: joined(0.5, False)
    yield "pixels joined, any two", lambda: joined(pixels.weights(line), False)
    yield "pixels joined hard, any two", lambda: joined(hard, False)
    yield "pixels averaged, matched", lambda: joined(0.5, True)
    yield "pixels joined, matched", lambda: joined(pixels.weights(line), True)
    yield "components, half exchanged, any two", half
    yield f"components, the first {COARSE} exchanged, any two", coarse


def reconstructions(judge: Judge, bits: int) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """The rows of reconstructions, by name."""

    def linear() -> dict[str, Any]:
        found = judge.components.first(bits // 2)
        return judge.rebuilt(found.images(found.transform(judge.test), judge.test), None)

    def quantized() -> dict[str, Any]:
        found = judge.components.first(bits // 2)
        seen = judge.pool
        if judge.config.data.flip:
            seen = np.concatenate([seen, seen[:, :, ::-1]])
        quantizer = components.fit_quantizer(found.transform(seen), found.deviations)
        values = quantizer.quantize(found.transform(judge.test))
        return judge.rebuilt(found.images(values, judge.test), quantizer.bits)

    def file(form: str) -> dict[str, Any]:
        setting = compression.about(form, judge.test[: compression.SEARCHED], bits / 8)
        row = setting.measure(judge.test)
        return judge.rebuilt(row.images, 8 * row.payload) | {"setting": row.label}

    yield f"{bits // 2} components", linear
    yield "the same, quantized", quantized
    for form, name in FORMATS.items():
        if name == "jpg" or features.check(name):
            yield form, partial(file, form)


def peers(
    judge: Judge, bits: int, minutes: float
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """The rows of VQ-VAEs trained for some minutes, by name."""
    from benchmarks import vq_vae  # needs PyTorch

    def measure(residual: bool) -> dict[str, Any]:
        side = judge.config.data.image_size
        form = vq_vae.form_of(bits, side, residual)
        model, trained = vq_vae.trained(judge.config, judge.dataset, form, 60 * minutes)
        size = judge.extractor.batch_size
        rebuilt = vq_vae.decode(model, vq_vae.encode(model, judge.test, size), size)
        rng = np.random.default_rng(0)
        first, second = pixels.pairs_of(rng, judge.samples, len(judge.pool)).T
        codes = [vq_vae.encode(model, judge.pool[x], size) for x in (first, second)]
        kept = rng.random(codes[0].shape[:2])[..., None] < 0.5
        made = vq_vae.decode(model, np.where(kept, *codes), size)
        return {**trained, **judge.rebuilt(rebuilt, form.bits(side)), **judge.new(made)}

    yield f"grid VQ-VAE, {minutes:g} min", lambda: measure(False)
    yield f"residual VQ-VAE, {minutes:g} min", lambda: measure(True)


def table(rows: list[dict[str, Any]]) -> str:
    """Formats rows as two Markdown tables, with the mean and range of draws."""

    def cell(name: str, key: str, digits: int, part: str = "") -> str:
        found = [row[part] if part else row for row in rows if row["name"] == name]
        values = [row[key] for row in found if row.get(key) is not None]
        if not values:
            return ""
        shown = f"{statistics.mean(values):.{digits}f}"
        if len(values) > 1:
            shown += f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
        return shown

    made = dict.fromkeys(row["name"] for row in rows if "fid" in row or "copied_share" in row)
    rebuilt = dict.fromkeys(row["name"] for row in rows if "psnr" in row)
    head = ["samples", "FID", *SPREAD, *(f"quadrants: {x}" for x in SPREAD), "copied share"]
    lines = [
        [
            name,
            cell(name, "fid", 4),
            *(cell(name, key, 3) for key in SPREAD),
            *(cell(name, key, 3, "quadrants") for key in SPREAD if name != "test images"),
            *([""] * 4 if name == "test images" else []),
            cell(name, "copied_share", 3),
        ]
        for name in made
    ]
    tables = [markdown(head, lines)] if lines else []
    columns = {"bits": 0, "psnr": 2, "lpips": 4, "rfid": 4}
    lines = [[name, *(cell(name, key, d) for key, d in columns.items())] for name in rebuilt]
    head = ["reconstructions", "bits", "PSNR, dB", "LPIPS", "rFID"]
    return "\n\n".join([*tables, *([markdown(head, lines)] if lines else [])])


def main() -> None:
    """Measures what is missing and prints the tables."""
    options = _parse()
    changes: dict[str, Any] = {"data.path": str(options.data.absolute())} if options.data else {}
    config = load_config(options.config).with_fields(changes)
    path = options.output / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    names = ("config", "samples", "real", "bits")
    settings = {name: getattr(options, name) for name in names} | changes
    if any(row["settings"] != settings for row in rows):
        raise SystemExit(f"{path} is of other settings than this command: give another --output")
    options.output.mkdir(parents=True, exist_ok=True)
    done = {(row["name"], row["draw"]) for row in rows}
    judge = Judge(config, options.samples, options.real, options.bits)

    def wanted() -> Iterator[tuple[str, int, Callable[[], dict[str, Any]]]]:
        yield "test images", 0, lambda: {"copied_share": judge.copied(judge.test)}
        for draw in range(DRAWS):
            yield from ((name, draw, work) for name, work in new_images(judge, draw))
            if not draw:
                yield from ((name, 0, work) for name, work in reconstructions(judge, options.bits))
        if options.minutes:
            trained = peers(judge, options.bits, options.minutes)
            yield from ((name, 0, work) for name, work in trained)

    for name, draw, work in wanted():
        if (name, draw) in done:
            continue
        started = time.perf_counter()
        row = {"name": name, "draw": draw, **work(), "commit": commit(), "settings": settings}
        row["seconds"] = round(time.perf_counter() - started, 1)
        rows.append(row)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
    print(f"\n{table(rows)}\n")
    print(f"features: {judge.extractor.network}; k = 5; {len(judge.test):,} test images")
    print(f"measured at {', '.join(sorted({row['commit'] for row in rows}))}")


def _parse() -> argparse.Namespace:
    parser = parser_for(__doc__)
    parser.add_argument("--config", default="faces", help="of the data; may include variants")
    parser.add_argument("--data", type=Path, help="folder of images; by default that of the config")
    parser.add_argument("--bits", type=int, default=1_024, help="an image; a multiple of 16")
    parser.add_argument("--samples", type=int, default=1_000, help="samples of a draw")
    parser.add_argument("--real", type=int, help="test images; by default all")
    parser.add_argument("--minutes", type=float, default=0.0, help="of training, for the peers")
    parser.add_argument("--output", type=Path, default=Path("runs/baselines"), help="of rows")
    options = parser.parse_args()
    if options.bits % 16 or not 16 <= options.bits <= 4_096:
        parser.error(f"--bits={options.bits}: give a multiple of 16, at most 4,096")
    return options


if __name__ == "__main__":
    main()
