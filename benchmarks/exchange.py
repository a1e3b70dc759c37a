"""Compares rules for choosing which codes of two parents to exchange, on trained runs.

    python -m benchmarks.exchange --workdir runs/toon_faces [RUN ...] [--seeds=3]

Makes samples of the same pairs of training images by every rule below and compares them with the
test images (features of VGG16). Prints mean and standard deviation over all runs and, for each,
`--seeds` draws of pairs. `new` is the mean absolute difference (of 255) of samples from the
reconstruction of the nearer parent. Writes exchange.json to --output.

  nothing       reconstructions of the first parents
  hyperplane    `pivq_jax.sampling.recombine`: pairs that are close to each other
  lift          the same with `log_lift` of the training images, as the evaluation samples
  near parents  the same with other pairs: of --nearest-of random images, matched one to one to the
                first parents, at the least total distance (`pivq_jax.sampling.near_parents`)
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

import pivq_jax
from benchmarks.common import markdown, parser_for, pixels_of, spread
from benchmarks.summary import summary
from pivq_jax.common.files import write_json
from pivq_jax.config.check import read_config
from pivq_jax.data.sources import first_images
from pivq_jax.evaluation.features import feature_extractor
from pivq_jax.evaluation.prdc import compare_features
from pivq_jax.inference import decode_batched, encode_split
from pivq_jax.sampling import CodeSpace, near_parents, random_parents
from pivq_jax.training.build import dataset_from_config


def newness(made: np.ndarray, parents: tuple[np.ndarray, np.ndarray]) -> float:
    """Mean absolute difference from the nearer of two images; all uint8 [S, H, W, 3]."""
    apart = [np.abs(made.astype(np.float32) - parent).mean((1, 2, 3)) for parent in parents]
    return float(np.mean(np.minimum(*apart)))


def measure(
    workdir: Path, samples: int, seeds: int, nearest_of: int
) -> dict[str, list[dict[str, float]]]:
    """Returns the metrics of one run by rule, for each draw of pairs."""
    model = pivq_jax.load(workdir)
    dataset, batch_size = dataset_from_config(model.config), model.config.evaluate.batch_size
    parents = first_images(dataset.train, samples)
    every = encode_split(model, dataset.train, batch_size)
    codes, lift = every[: len(parents)], model.log_lift(every)
    extractor = feature_extractor("vgg")
    real = extractor.extract(pixels_of(dataset.test))

    def decoded(sets: np.ndarray) -> np.ndarray:
        return decode_batched(model, sets, batch_size)

    def rebuilt(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return decoded(codes[pairs[:, 0]]), decoded(codes[pairs[:, 1]])

    def exchanged(pairs: np.ndarray, key: jax.Array, lift: jax.Array | None) -> np.ndarray:
        first, second = pairs.T
        mixed = model.recombine(codes[first], codes[second], key, lift=lift)
        return decoded(np.sort(np.asarray(mixed), -1))

    figures: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):
        key = jax.random.key(seed)
        pairs = np.asarray(random_parents(key, samples, len(parents)))
        near = np.asarray(
            near_parents(model.space, key, samples, codes, model.codebook, nearest_of=nearest_of)
        )
        of_pairs, of_near = rebuilt(pairs), rebuilt(near)
        images = {
            "nothing": of_pairs[0],
            "hyperplane": exchanged(pairs, key, None),
            "lift": exchanged(pairs, key, lift),
            "near parents": exchanged(near, key, lift),
        }
        for name, made in images.items():
            values = compare_features(real, extractor.extract(made))
            values["new"] = newness(made, of_near if name == "near parents" else of_pairs)
            figures.setdefault(name, []).append(values)
            print(f"seed {seed}, {name}:", *(f"{k} {v:.4f}" for k, v in values.items()), flush=True)
    return figures


def main() -> None:
    """Makes samples by every rule and prints the table."""
    parser = parser_for(__doc__)
    parser.add_argument(
        "--workdir", type=Path, nargs="+", default=[Path("runs/toon_faces")], help="trained runs"
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of draws of pairs")
    parser.add_argument("--nearest-of", type=int, default=64, help="of the rule near parents")
    parser.add_argument("--samples", type=int, default=1_000)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    for workdir in options.workdir:
        if not CodeSpace.of(read_config(workdir)).distinct:
            parser.error(f"{workdir} has no sets of distinct codes: give a matching run")
    by_run = {
        str(workdir): measure(workdir, options.samples, options.seeds, options.nearest_of)
        for workdir in options.workdir
    }
    figures = next(iter(by_run.values()))
    names = list(figures["nothing"][0])
    report: dict[str, Any] = {"samples": options.samples, "workdirs": list(by_run)}
    lines = []
    for rule in figures:
        drawn = [each for by_rule in by_run.values() for each in by_rule[rule]]
        report[rule] = summary(drawn)
        lines.append([rule, *(spread([each[name] for each in drawn], 4) for name in names)])
    print(f"\n{markdown(['', *names], lines)}")
    write_json(options.output / "exchange.json", report)


if __name__ == "__main__":
    main()
