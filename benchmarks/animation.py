"""Draws the animated interpolation of the README, from a published model.

    python -m benchmarks.animation --pretrained=toon_faces --output=FILE.webp

A row of training images become others by one exchange of codes after another, and in the end
themselves again. --output is docs/pictures/interpolation.webp by default.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

import pivq_jax
from benchmarks.common import parser_for
from pivq_jax.common.files import write_atomically
from pivq_jax.common.pictures import Pixels, grid
from pivq_jax.data import images_to_uint8
from pivq_jax.inference import TrainedModel

FACES, STOPS, STEPS = 5, 3, 14
SHOWN, RESTED = 120, 900  # milliseconds of a frame, and of one that shows images between exchanges


def frames(model: TrainedModel, codes: np.ndarray, steps: int) -> tuple[list[Pixels], list[int]]:
    """Returns the pictures, and the milliseconds of each, for codes int32 [stops, faces, N]."""
    pictures, times = [], []
    for first, last in zip(codes, np.roll(codes, -1, axis=0), strict=True):
        for step, now in enumerate(model.interpolate(first, last, steps)[:-1]):
            pictures.append(grid(images_to_uint8(model.decode(now)), len(first)))
            times.append(SHOWN if step else RESTED)
    return pictures, times


def webp(pictures: list[Pixels], times: list[int]) -> bytes:
    """Encodes pictures as an animation that repeats; lossless, as drawings take few bytes so."""
    first, *others = map(Image.fromarray, pictures)
    file = io.BytesIO()
    first.save(
        file, "WebP", save_all=True, append_images=others, duration=times, loop=0, lossless=True
    )
    return file.getvalue()


def main() -> None:
    """Parses the command line and writes the file."""
    parser = parser_for(__doc__)
    parser.add_argument("--pretrained", default="toon_faces", help="a published model")
    parser.add_argument("--output", type=Path, default=Path("docs/pictures/interpolation.webp"))
    options = parser.parse_args()
    model = pivq_jax.from_pretrained(options.pretrained)
    if model.parents is None:
        parser.error(f"{options.pretrained} is published without the codes of training images")
    codes = np.asarray(model.parents)[: FACES * STOPS].reshape(STOPS, FACES, -1)
    content = webp(*frames(model, codes, STEPS))
    write_atomically(options.output, content)
    print(f"wrote {options.output}, {len(content):,} bytes")


if __name__ == "__main__":
    main()
