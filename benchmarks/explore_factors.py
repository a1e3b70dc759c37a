"""Measures how often the explorer reads the factors of faces right.

    python -m benchmarks.explore_factors --pretrained=toon_faces [--faces=1000]

The faces are samples. The true colour is the value nearest to the median of those pixels that have
exactly this colour in every training image; the true value of another factor is what the judge of
benchmarks/edits.py sees, a convolutional network that is trained on training images and kept in
--output. Prints the share of values read right from the codes (naive Bayes,
`TrainedModel.read_factors`); of the values that the explorer reads from the image and shows, the
share that is right; and the share that it calls unclear.
"""

import re
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from benchmarks.common import add_model, markdown, open_model, output_of, parser_for
from benchmarks.edits import images_and_labels, judge_of
from pivq_jax.data.sources import first_images
from pivq_jax.explore.engine import Engine
from pivq_jax.inference import decode_batched
from pivq_jax.training.build import dataset_from_config

COLOUR = re.compile("#[0-9a-f]{6}")


def painted(
    images: np.ndarray, labels: np.ndarray, factors: Mapping[str, Sequence[str]]
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Returns by factor, if it is a colour, its palette and the pixels that always have it.

    They are int [C, 3], and bool [H, W] where each of the images has the colour of its label.
    """
    found = {}
    for factor, names in enumerate(factors.values()):
        if all(COLOUR.fullmatch(name) for name in names):
            palette = np.array([list(bytes.fromhex(name[1:])) for name in names])
            where = np.ones(images.shape[1:3], bool)
            for image, colour in zip(images, palette[labels[:, factor]], strict=True):
                where &= (np.abs(image - colour) <= 2).all(-1)
            found[factor] = palette, where
    return found


def main() -> None:
    """Prints the table."""
    parser = parser_for(__doc__)
    add_model(parser, "edits")
    parser.add_argument("--faces", type=int, default=1_000, help="(%(default)s)")
    options = parser.parse_args()
    model, output = open_model(options), output_of(options, "edits")
    engine = Engine(model, dataset_from_config(model.config))
    known, dataset, size = engine.labelled, engine.dataset, model.config.evaluate.batch_size
    assert known and dataset
    factors = dataset.factors
    train = images_and_labels(first_images(dataset.train, 10_000), factors)
    see = judge_of(factors, *train, output / "judge.msgpack")

    sets = np.asarray(known.sample(jax.random.key(0), options.faces))
    images = decode_batched(model, sets, size)
    true = see(images, size)
    for factor, (palette, where) in painted(*train, factors).items():
        middle = np.median(images[:, where], 1)
        true[:, factor] = np.linalg.norm(middle[:, None] - palette, axis=-1).argmin(1)
    by_codes = known.read_factors(sets) == true
    shown = np.array([engine.read_factors(codes) for codes in sets])
    right, unclear = shown == true, shown < 0
    lines = []
    for factor, name in enumerate(["all factors", *factors], -1):
        column = slice(None) if factor < 0 else factor
        clear = ~unclear[:, column]
        shares = by_codes[:, column], right[:, column][clear], unclear[:, column]
        lines.append([name, *(f"{share.mean():.3f}" for share in shares)])
    print(markdown([f"{len(sets)} samples", "by codes", "shown", "unclear"], lines))


if __name__ == "__main__":
    main()
