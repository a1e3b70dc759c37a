"""Measures completions of faces, beside the nearest training image.

    python -m benchmarks.completion --pretrained=toon_faces [--images=200]
    python -m benchmarks.completion --workdir=runs/toon_faces

Hides the left half, the centre and half of all patches of test images. Prints the PSNR inside the
hole of the training image whose visible pixels are nearest; of completions without the prior and,
if the model has one, with it; and of the reconstruction of the whole image, which is a bound for
them. No method knows a factor that is hidden altogether, as the factors of a face are independent.
Writes to --output: completion.json, and completion.png with the first images: what is visible, the
nearest training image, completions without and with the prior, the original.
"""

import dataclasses
import time

import numpy as np

from benchmarks.common import add_model, open_model, output_of, parser_for, pixels_of
from pivq_jax.common.files import write_json
from pivq_jax.common.pictures import grid, save_png
from pivq_jax.data.images import images_to_float
from pivq_jax.data.sources import first_images
from pivq_jax.edits.completion import GREY, visible_pixels
from pivq_jax.inference import POOL_IMAGES, TrainedModel, decode_batched, encode_split
from pivq_jax.inference.splits import in_batches
from pivq_jax.inference.trained_model import COMPLETED_AT_ONCE
from pivq_jax.training.build import dataset_from_config

REGIONS = ("left", "centre", "patches")
SHOWN = 4  # images of each region in the picture


def psnr_inside(images: np.ndarray, truth: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Returns the PSNR of hidden pixels in dB, [B], of uint8 images [B, H, W, 3].

    Images that are equal have the error of rounding to grey levels, 58.9 dB.
    """
    squares = np.square((images.astype(np.float64) - truth) / 255).mean(-1)
    hidden = ~visible
    error = (squares * hidden).sum((1, 2)) / hidden.sum((1, 2))
    return -10 * np.log10(np.maximum(error, 1 / (12 * 255**2)))


def nearest(images: np.ndarray, visible: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Returns for each image the training image whose visible pixels are nearest, [B]."""
    seen = np.repeat(visible[..., None], 3, axis=-1).reshape(len(images), -1).astype(np.float32)
    wanted = images.reshape(len(images), -1) * seen
    distances = []
    for start in range(0, len(training), 1_000):
        block = training[start : start + 1_000].reshape(-1, seen.shape[1]).astype(np.float32)
        distances.append(np.square(block) @ seen.T - 2 * block @ wanted.T)
    return np.concatenate(distances).argmin(0)


def completed(
    model: TrainedModel, images: np.ndarray, visible: np.ndarray, use_prior: bool
) -> tuple[np.ndarray, float]:
    """Completes images, uint8 [B, H, W, 3], and says how many seconds an image takes once all is
    compiled.
    """

    def complete(rows: np.ndarray) -> np.ndarray:
        found = model.complete(images_to_float(images[rows]), visible[rows], use_prior)
        return decode_batched(model, np.asarray(found), size)

    size = min(COMPLETED_AT_ONCE, len(images))
    # The last batch is filled up, so that nothing compiles for it.
    rows = np.concatenate(list(in_batches(np.arange(len(images)), size)))
    complete(rows[:size])
    started = time.perf_counter()
    made = complete(rows)[: len(images)]
    return made, (time.perf_counter() - started) / len(images)


def main() -> None:
    """Prints the table."""
    parser = parser_for(__doc__)
    add_model(parser, "completion")
    parser.add_argument("--images", type=int, default=200, help="test images")
    options = parser.parse_args()
    output = output_of(options, "completion")
    model = open_model(options)
    dataset, size = dataset_from_config(model.config), model.config.evaluate.batch_size
    pool = first_images(dataset.train, POOL_IMAGES)
    if model.parents is None:
        model = dataclasses.replace(model, parents=encode_split(model, pool, size))
    tests = first_images(dataset.test, options.images)
    training, images = pixels_of(pool), pixels_of(tests)
    whole = decode_batched(model, encode_split(model, tests, size), size)

    rows: dict[str, dict[str, float]] = {}
    tiles = []
    for region in REGIONS:
        visible = visible_pixels(region, dataset.image_size, len(images))
        found = {"nearest training image": training[nearest(images, visible, training)]}
        seconds = {}
        for name, use_prior in (("without the prior", False), ("with the prior", True)):
            if use_prior and model.prior is None:
                continue
            found[name], seconds[f"{name}, s an image"] = completed(
                model, images, visible, use_prior
            )
        shown = np.where(visible[..., None], images, np.uint8(GREY))
        tiles += [x[:SHOWN] for x in (shown, *found.values(), images)]
        found["reconstruction"] = whole
        inside = {name: psnr_inside(x, images, visible) for name, x in found.items()}
        best = inside["nearest training image"]
        rows[region] = {
            **{name: float(values.mean()) for name, values in inside.items()},
            **{
                f"{name}, better": float((inside[name] > best).mean())
                for name in found
                if name.startswith("with")
            },
            **seconds,
        }
        print(region, {name: round(value, 3) for name, value in rows[region].items()}, flush=True)
    write_json(output / "completion.json", rows)
    # One row per image and one column per way, [regions * SHOWN, ways].
    columns = np.stack(tiles).reshape(len(REGIONS), -1, *tiles[0].shape).swapaxes(1, 2)
    save_png(
        output / "completion.png", grid(columns.reshape(-1, *images.shape[1:]), columns.shape[2])
    )


if __name__ == "__main__":
    main()
