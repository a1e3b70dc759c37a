"""Measures how often the explorer reads the factors of faces right.

    python -m benchmarks.explore_factors --pretrained=toon_faces [--faces=1000] [--folder=DIR]

The faces are decoded parents, samples, and interpolations of neighbouring test images after a
random number of exchanges. The true colour is the value nearest to the median of those pixels that
have exactly this colour in every training image; the true value of another factor is what the judge
of benchmarks/edits.py sees, a convolutional network that is trained on training images and kept in
--output. Prints for each kind of face the share of values read right from the codes (naive Bayes,
`TrainedModel.read_factors`); of the values that the explorer reads from the image and shows, the
share that is right; and the share that it calls unclear. With a --folder of docs/build_explorer.py,
the page without a server also reads these faces, in Debian's chromium (playwright of
requirements-test.txt), and each explorer has its columns.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from benchmarks.common import (
    add_model,
    chromium,
    markdown,
    markdown_row,
    open_model,
    output_of,
    parser_for,
    serving,
)
from benchmarks.edits import images_and_labels, judge_of
from pivq_jax.data.sources import first_images
from pivq_jax.explore.engine import Engine
from pivq_jax.inference import decode_batched, encode_split
from pivq_jax.training.build import dataset_from_config

COLOUR = re.compile("#[0-9a-f]{6}")
READ = """
async (sets) => {
  const { BrowserBackend } = await import("/browser.js");
  const backend = new BrowserBackend();
  await backend.open(() => {});
  const found = [];
  for (const codes of sets) found.push(await backend.readFactors(codes));
  return found;
}
"""


def interpolated(engine: Engine, ends: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns a set between each and the next one of int [B, N], the codes of images."""
    sets = []
    for a, b in zip(ends, np.roll(ends, -1, 0), strict=True):
        pairs = engine.pair(a, b)
        order = np.argsort(pairs.cost, kind="stable")
        order = order[pairs.a[order] != pairs.b[order]]
        sets.append(pairs.a.copy())
        exchanged = order[: rng.integers(1, len(order)) if len(order) > 1 else 0]
        sets[-1][exchanged] = pairs.b[exchanged]
    return np.sort(sets)


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


def read_by_page(folder: Path, sets: np.ndarray) -> np.ndarray:
    """Returns what the page without a server reads, int [B, A]."""
    with chromium() as browser, serving(folder) as address:
        page = browser.new_page()
        page.goto(address)
        return np.array(page.evaluate(READ, sets.tolist()))


def main() -> None:
    """Prints the tables."""
    parser = parser_for(__doc__)
    add_model(parser)
    parser.add_argument("--faces", type=int, default=1_000, help="of each kind (%(default)s)")
    parser.add_argument("--folder", type=Path, help="an explorer without a server, of this model")
    parser.add_argument("--output", type=Path, help="default <workdir>/edits or runs/edits/<model>")
    options = parser.parse_args()
    model, output = open_model(options), output_of(options, "edits")
    engine = Engine(model, dataset_from_config(model.config))
    known, dataset, size = engine.labelled, engine.dataset, model.config.evaluate.batch_size
    assert known and known.parents is not None and dataset
    factors = dataset.factors
    train = images_and_labels(first_images(dataset.train, 10_000), factors)
    see = judge_of(factors, *train, output / "judge.msgpack")
    colours, rng = painted(*train, factors), np.random.default_rng(0)
    ends = encode_split(model, first_images(dataset.test, options.faces), size)
    for kind, sets in {
        "parents": known.parents[: options.faces],
        "samples": np.asarray(known.sample(jax.random.key(0), options.faces)),
        "interpolations": interpolated(engine, ends, rng),
    }.items():
        images = decode_batched(model, sets, size)
        true = see(images, size)
        for factor, (palette, where) in colours.items():
            middle = np.median(images[:, where], 1)
            true[:, factor] = np.linalg.norm(middle[:, None] - palette, axis=-1).argmin(1)
        readings = {"by codes": known.read_factors(sets)}
        readings["shown"] = np.array([engine.read_factors(codes) for codes in sets])
        if options.folder:
            readings["shown without a server"] = read_by_page(options.folder, sets)
        head = [f"{len(sets)} {kind}"]
        for name, read in readings.items():
            head += [name, "unclear"] if (read < 0).any() else [name]
        print(f"\n{markdown(head)}", flush=True)
        for factor, name in enumerate(["all factors", *factors], -1):
            column = slice(None) if factor < 0 else factor
            cells = []
            for read in readings.values():
                values, wanted = read[:, column], true[:, column]
                cells.append(f"{(values == wanted)[values >= 0].mean():.3f}")
                if (read < 0).any():
                    cells.append(f"{(values < 0).mean():.3f}")
            print(markdown_row([name, *cells]), flush=True)


if __name__ == "__main__":
    main()
