"""Judges new faces by dlib's face embedding: are they like real ones, and are they known persons?

    python -m benchmarks.face_identity --workdir runs/faces [--samples=1000] [--searched=4000]

No loss of this project uses this network (dlib_face_recognition_resnet_model_v1, King 2017, trained
on three million photographs), so it is a second judge beside VGG16. It needs
`pip install '.[align]'`, and photographs aligned with the preset `face`, whose split is by
person, so that no person of the test images is among the training images. Rows:

  training images    not among those searched, but in part of the same persons
  averaged pixels    of the parents of recombined images
  reconstructions    of the test images
  of training        reconstructions of training images: a judge worth the name finds most known
  recombined         of two training images, as the config chooses them, with log lifts if used
  any two parents    the same, both parents at random
  prior              sets of the run's prior, if it has one, at temperature 1

FID, precision, recall, density and coverage are those of `compare_features` (k = 5), of the 128
numbers of each face against those of the test images. `known` is the share of images that are
nearer to some training image than 95 % of test images are. For persons that training has not seen
it is 5 % by definition. So 5 % of new faces say nothing; more would be faces of known persons.
A face takes a tenth of a second on a core; --searched limits the training images, from which the
parents of recombined images are drawn.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

import pivq_jax
from benchmarks.common import parser_for, pixels_of
from pivq_jax.common.files import write_json
from pivq_jax.common.output import progress_bar
from pivq_jax.data.framing import PRESETS
from pivq_jax.data.landmarks import import_dlib, model_file
from pivq_jax.data.sources import Subset
from pivq_jax.evaluation.neighbours import nearest_neighbours
from pivq_jax.evaluation.prdc import compare_features
from pivq_jax.evaluation.stages import average_pixels
from pivq_jax.inference import decode_batched, encode_split
from pivq_jax.sampling import recombine_at_random
from pivq_jax.training.build import dataset_from_config

CHIP = 150  # side of the images that the network takes
# Where dlib's chips have the eyes, as fractions of the side: means of the corners of each eye in
# dlib's mean face, whose frame is enlarged by a quarter on each side.
CHIP_EYES = ((0.3182, 0.3142), (0.6686, 0.3142))
KNOWN = 5.0  # percent of test images that are as near to a training image as a known person


def embedder() -> Any:
    """dlib's network from chips [M, 150, 150, 3] to 128 numbers each."""
    file = model_file("models/dlib_face_recognition_resnet_model_v1.dat")
    return import_dlib().face_recognition_model_v1(str(file))


def chip(image: np.ndarray) -> np.ndarray:
    """Moves an aligned face, uint8 [S, S, 3], to where dlib has it: uint8 [150, 150, 3]."""
    (left, height), (right, _) = np.multiply(PRESETS["face"], len(image))
    (to_left, to_height), (to_right, _) = np.multiply(CHIP_EYES, CHIP)
    scale = (right - left) / (to_right - to_left)
    border = len(image) // 2
    padded = np.pad(image, ((border, border), (border, border), (0, 0)), "reflect")
    moves = (scale, 0, left - scale * to_left, 0, scale, height - scale * to_height)
    matrix = np.add(moves, (0, 0, border, 0, 0, border)).tolist()
    moved = Image.fromarray(padded).transform(
        (CHIP, CHIP), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
    )
    return np.asarray(moved)


def embed(network: Any, images: np.ndarray, name: str) -> np.ndarray:
    """The embeddings float32 [M, 128] of aligned faces, uint8 [M, S, S, 3]."""
    found = [
        network.compute_face_descriptor(chip(image))
        for image in progress_bar(images, desc=name, unit=" faces")
    ]
    return np.asarray(found, np.float32)


def rows_of(workdir: Path, samples: int, searched: int, seed: int) -> dict[str, dict[str, float]]:
    """The figures of each kind of image of one run."""
    network, model = embedder(), pivq_jax.load(workdir)
    batch_size = model.config.evaluate.batch_size
    dataset = dataset_from_config(model.config)
    order = np.random.default_rng(seed).permutation(len(dataset.train))
    held_out = Subset(dataset.train, order[:samples])
    pool = Subset(dataset.train, order[samples : samples + searched])
    codes = encode_split(model, pool, batch_size)
    test = pixels_of(dataset.test)
    lift = None if model.space.ordered else model.log_lift(codes)

    def recombine(nearest_of: int) -> tuple[np.ndarray, np.ndarray]:
        key, space, codebook = jax.random.key(seed), model.space, model.codebook
        mixed, parents = recombine_at_random(
            space, codebook, codes, samples, key, batch_size, lift=lift, nearest_of=nearest_of
        )
        return decode_batched(model, mixed, batch_size), parents

    recombined, parents = recombine(model.config.sample.nearest_of)
    made = {
        "training images": pixels_of(held_out),
        "averaged pixels": np.concatenate([*average_pixels(pool, parents, batch_size)]),
        "reconstructions": decode_batched(
            model, encode_split(model, dataset.test, batch_size), batch_size
        ),
        "of training": decode_batched(model, codes[:samples], batch_size),
        "recombined": recombined,
        "any two parents": recombine(1)[0],
    }
    if model.prior is not None:
        drawn = np.asarray(model.sample_prior(jax.random.key(seed), samples))
        made["prior"] = decode_batched(model, drawn, batch_size)

    real = embed(network, test, "test images")
    known = embed(network, pixels_of(pool), "searched")
    near = float(np.percentile(nearest_neighbours(real, known, 1).distances, KNOWN))
    figures = {}
    for name, images in made.items():
        found = embed(network, images, name)
        nearest = nearest_neighbours(found, known, 1).distances[:, 0]
        figures[name] = compare_features(real, found) | {"known": float(np.mean(nearest < near))}
        print(name, *(f"{key} {value:.4f}" for key, value in figures[name].items()), flush=True)
    return figures


def main() -> None:
    """Prints the table and writes face_identity.json."""
    parser = parser_for(__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("runs/faces"), help="trained run")
    parser.add_argument("--samples", type=int, default=1_000)
    parser.add_argument("--searched", type=int, default=4_000, help="training images searched")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    figures = rows_of(options.workdir, options.samples, options.searched, options.seed)
    write_json(options.output / "face_identity.json", figures)


if __name__ == "__main__":
    main()
