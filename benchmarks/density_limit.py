"""How much of the density of samples the errors of reconstruction leave.

    python -m benchmarks.density_limit --pretrained toon_faces
    python -m benchmarks.density_limit --workdir runs/toon_faces

Compares training images, and their reconstructions with nothing exchanged, with the test images in
the features of VGG16, as samples are compared (docs/metrics.md). Two more rows keep only a part of
the error of each reconstruction, in feature space: features between those of the image and those of
its reconstruction. The last one takes away the mean error of all images. `error` is the mean
squared error of features over the squared median radius of the balls of the test images.
"""

import jax
import numpy as np

from benchmarks.common import add_model, markdown, open_model, parser_for, pixels_of
from pivq_jax.data.sources import first_images
from pivq_jax.evaluation.distribution import compare_features
from pivq_jax.evaluation.features import feature_extractor
from pivq_jax.evaluation.neighbours import nearest_neighbours
from pivq_jax.evaluation.reconstruction import decode_batched, encode_split
from pivq_jax.inference import TrainedModel
from pivq_jax.training.build import dataset_from_config

NEIGHBOURS = 5
COLUMNS = ("error", "fid", "precision", "density", "coverage")


def measure(model: TrainedModel, count: int) -> dict[str, dict[str, float]]:
    """Returns the values of `COLUMNS` by row, for at most `count` images of each split."""
    dataset, batch_size = dataset_from_config(model.config), model.config.evaluate.batch_size
    parents, test = (first_images(split, count) for split in (dataset.train, dataset.test))
    codes = encode_split(model, parents, batch_size)
    extractor = feature_extractor("vgg")
    real, images = (extractor.extract(pixels_of(part)) for part in (test, parents))
    errors = extractor.extract(decode_batched(model, codes, batch_size)) - images
    radii = nearest_neighbours(real, real, NEIGHBOURS + 1).distances[:, NEIGHBOURS]
    rows = {
        "images": np.zeros_like(errors),
        "reconstructions": errors,
        "0.7 of their errors": np.float32(0.7) * errors,
        "0.5 of their errors": np.float32(0.5) * errors,
        "without the mean error": errors - errors.mean(0),
    }
    return {
        name: compare_features(real, images + moved, NEIGHBOURS)
        | {"error": float(np.mean(np.sum(moved**2, -1)) / np.median(radii) ** 2)}
        for name, moved in rows.items()
    }


def main() -> None:
    """Prints the table."""
    parser = parser_for(__doc__)
    add_model(parser)
    parser.add_argument("--images", type=int, default=1_000, help="of each split")
    options = parser.parse_args()
    model = open_model(options)
    print(f"{jax.devices()[0].device_kind}; step {model.step:,}\n")
    found = measure(model, options.images)
    rows = [[row, *(f"{values[name]:.4f}" for name in COLUMNS)] for row, values in found.items()]
    print(markdown(["", *COLUMNS], rows))


if __name__ == "__main__":
    main()
