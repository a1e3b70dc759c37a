"""Compares features of VGG16 by how well they separate images; see evaluation/features.py.

    python -m benchmarks.features [--images=600] [--size=64]

Uses Toon Head faces, half of them as real images and the others held out. For each candidate,
computes density and coverage (k = 5) against the real images for the held-out images, which should
have 1, and for versions of them that should have low values: blurred by a pixel, with noise of 10
grey levels, averaged with another face, and composed of patches of 8 or 32 pixels from two faces at
random. Then computes the balanced accuracy of a linear classifier (ridge regression) of the ten
factors, fitted on the real and measured on the held-out faces: how much of a face the features
represent.
"""

import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from PIL import Image
from tqdm import tqdm

from benchmarks.common import parser_for
from pivq_jax.common.output import progress_bar
from pivq_jax.data import toon_faces
from pivq_jax.data.images import images_to_float
from pivq_jax.evaluation.prdc import prdc
from pivq_jax.losses.backbones import VGG16
from pivq_jax.losses.perceptual import load_lpips, lpips_features, normalize_images


def damaged(images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the images and damaged versions of them by name, each uint8 [M, H, W, 3]."""
    rng = np.random.default_rng(0)
    floats, others = images.astype(np.float32), np.roll(images, 1, 0)

    def patchwork(side: int) -> np.ndarray:
        count, height, width, _ = images.shape
        picks = rng.integers(0, 2, (count, -(-height // side), -(-width // side)))
        masks = picks.repeat(side, 1).repeat(side, 2)[:, :height, :width, None]
        return np.where(masks == 1, images, others)

    made = {
        "held out": floats,
        "blurred": scipy.ndimage.gaussian_filter(floats, (0, 1, 1, 0)),
        "noisy": floats + rng.normal(0, 10, floats.shape),
        "averaged": (floats + others) / 2,
        "patches 8": patchwork(8),
        "patches 32": patchwork(32),
    }
    return {name: np.clip(np.round(x), 0, 255).astype(np.uint8) for name, x in made.items()}


def candidates(params: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the candidate features by name, each f32 [M, F]."""

    @jax.jit
    def means(params: Any, batch: jax.Array) -> tuple[list[jax.Array], ...]:
        x = images_to_float(batch)
        raw: Any = VGG16().apply({"params": params["backbone"]}, normalize_images(x))
        scaled = lpips_features(params, x, "vgg")
        return tuple([jnp.mean(block, (1, 2)) for block in blocks] for blocks in (raw, scaled))

    batches = [means(params, jnp.asarray(x)) for x in np.array_split(images, -(-len(images) // 50))]
    raw, scaled = jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
    return {
        "block 5": raw[4],
        "block 4": raw[3],
        "block 3": raw[2],
        "all": np.concatenate(raw, 1),
        "block 5, unit": scaled[4],
        "block 4, unit": scaled[3],
        "all, unit": np.concatenate(scaled, 1),
    }


def classify(train: np.ndarray, test: np.ndarray, factors: list[dict[str, str]]) -> float:
    """Mean balanced accuracy over factors; `factors` are those of `train`, then those of `test`."""
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    train, test = ((x.astype(np.float64) - mean) / deviation for x in (train, test))
    kernel = train @ train.T
    inverse = np.linalg.inv(kernel + 0.1 * np.trace(kernel) / len(train) * np.eye(len(train)))
    accuracies = []
    for name in factors[0]:
        values, labels = np.unique([face[name] for face in factors], return_inverse=True)
        fitted, wanted = labels[: len(train)], labels[len(train) :]
        targets = np.eye(len(values))[fitted]
        offset = targets.mean(0)
        guesses = np.argmax(test @ train.T @ inverse @ (targets - offset) + offset, 1)
        accuracies.append(np.mean([np.mean(guesses[wanted == c] == c) for c in np.unique(wanted)]))
    return float(np.mean(accuracies))


def main() -> None:
    """Prints the table."""
    parser = parser_for(__doc__)
    parser.add_argument("--images", type=int, default=600, help="images in each of two sets")
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()

    seeds = toon_faces.face_seeds("train", 2 * options.images)
    faces = [
        toon_faces.render_face(seed, options.size)
        for seed in progress_bar(seeds, desc="rendering", unit=" images")
    ]
    factors = [face[1] for face in faces]
    images = np.stack([np.asarray(Image.open(io.BytesIO(png))) for png, _ in faces])
    real, sets = images[: options.images], damaged(images[options.images :])

    params = load_lpips("vgg")
    of_real = candidates(params, real)
    of_sets = {name: candidates(params, x) for name, x in tqdm(sets.items(), "features")}
    print(f"density / coverage, {options.images} against {options.images} images of {options.size}")
    print(f"{'features':<15}" + "".join(f"{name:>14}" for name in sets) + f"{'factors':>9}")
    for kind, reference in of_real.items():
        cells = ""
        for name in sets:
            result = prdc(reference, of_sets[name][kind])
            cells += f"{result.density:8.2f} /{result.coverage:4.2f}"
        accuracy = classify(reference, of_sets["held out"][kind], factors)
        print(f"{kind:<15}{cells}{accuracy:9.2f}", flush=True)


if __name__ == "__main__":
    main()
