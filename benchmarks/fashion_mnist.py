"""Writes Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747) as a folder of PNG files.

    apt-get install dataset-fashion-mnist
    python -m benchmarks.fashion_mnist --output=runs/fashion_mnist_images
    python -m pivq_jax.main --config=configs/image_folder.py \\
      --config.data.path=runs/fashion_mnist_images --config.data.image_size=32

Writes the 70,000 grey images of 28x28 pixels to <output>/<class>/<number>.png, as an example of
photographs. --source is the directory of its four files in the idx format of MNIST, gzipped; by
default, that of the Debian package.
"""

import gzip
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.common import parser_for

CLASSES = (
    *("t-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle-boot"),
)


def read_idx(path: Path) -> np.ndarray:
    """Reads bytes in the idx format: 0, 0, 8, the rank, the sizes (big-endian int32), the data."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise SystemExit(f"{path} is not an idx file of bytes: give the files of Fashion-MNIST")
    rank = data[3]
    shape = np.frombuffer(data, ">i4", rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def main() -> None:
    """Writes the images."""
    parser = parser_for(__doc__)
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    if not options.source.is_dir():
        parser.error(f"--source={options.source} is not a directory: give that of the four files")
    for name in CLASSES:
        (options.output / name).mkdir(parents=True, exist_ok=True)
    for split in ("train", "t10k"):
        images = read_idx(options.source / f"{split}-images-idx3-ubyte.gz")
        labels = read_idx(options.source / f"{split}-labels-idx1-ubyte.gz")
        for number, (image, label) in enumerate(zip(tqdm(images, split), labels, strict=True)):
            path = options.output / CLASSES[label] / f"{split}_{number:05}.png"
            Image.fromarray(image).save(path)


if __name__ == "__main__":
    main()
