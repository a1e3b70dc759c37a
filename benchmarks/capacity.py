"""Bits that the codes of an image can carry and do carry, for sets, multisets and distinct codes.

    python -m benchmarks.capacity --runs runs/ablation/CONFIG [--seeds=3]

Reads the runs of `benchmarks.ablation` (KIND_seedNUMBER), encodes their test images, and prints one
row per kind of codes with the mean and standard deviation over seeds, and each mean's ratio to that
of nearest neighbour's distinct codes:

  sets            `matching`: N distinct codes
  multisets       `nearest`: N codes with repetitions
  distinct codes  `nearest`: the same, of which each code counts once
  sequences       `positional`

`ceiling` is log2 of the number of messages (for distinct codes, whose number n differs between
images, the entropy of n plus the mean of log2 C(K, n)) and `marginal` the sum of the entropies of
the entries' counts, as in docs/metrics.md.
"""

import statistics
from pathlib import Path

import numpy as np

import pivq_jax
from benchmarks.common import markdown, parser_for, spread
from pivq_jax.evaluation.capacity import capacity
from pivq_jax.evaluation.reconstruction import encode_split
from pivq_jax.sampling import CodeSpace
from pivq_jax.training.build import dataset_from_config

# Rows of the table: title, kind of the runs, whether repeated codes count once.
ROWS = (
    ("sets", "matching", False),
    ("multisets", "nearest", False),
    ("distinct codes", "nearest", True),
    ("sequences", "positional", False),
)
BASE = "distinct codes"
COLUMNS = ("codes", "entries used", "perplexity", "ceiling", "marginal")


def entropy_bits(frequencies: np.ndarray) -> float:
    """Returns the entropy of frequencies that sum to one."""
    p = frequencies[frequencies > 0]
    return float(-np.sum(p * np.log2(p)))


def distinct(space: CodeSpace, codes: np.ndarray) -> dict[str, float]:
    """Returns ceiling and marginal bits of the distinct codes of each image, int [M, N]."""
    contains = space.multi_hot(codes) > 0
    sizes, counts = np.unique(contains.sum(1), return_counts=True)
    shares = counts / len(codes)
    ceilings = [CodeSpace(int(size), space.codebook_size).ceiling_bits for size in sizes]
    ceiling = entropy_bits(shares) + float(np.dot(shares, ceilings))
    marginal = sum(entropy_bits(np.array([p, 1 - p])) for p in contains.mean(0))
    return {"ceiling_bits": ceiling, "marginal_bits": min(ceiling, marginal)}


def measure(workdir: Path, once: bool) -> dict[str, float]:
    """Returns the columns of a run."""
    model = pivq_jax.load(workdir)
    config = model.config
    tests = dataset_from_config(config).test
    codes = np.asarray(encode_split(model, tests, config.evaluate.batch_size))
    figures = capacity(model.space, codes)
    if once:
        figures |= distinct(model.space, codes)
    names = ("distinct_codes_per_image", "codes_used", "perplexity", "ceiling_bits")
    return dict(zip(COLUMNS, [figures[name] for name in (*names, "marginal_bits")], strict=True))


def main() -> None:
    """Prints the table."""
    parser = parser_for(__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder of an ablation's runs")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    options = parser.parse_args()

    found: dict[str, dict[str, list[float]]] = {}
    for title, kind, once in ROWS:
        workdirs = [options.runs / f"{kind}_seed{seed}" for seed in range(options.seeds)]
        rows = [measure(each, once) for each in workdirs if (each / "metrics.json").exists()]
        if rows:
            found[title] = {name: [row[name] for row in rows] for name in COLUMNS}
    if BASE not in found:
        parser.error(f"--runs={options.runs} has no runs of nearest neighbour (nearest_seed0)")

    lines = []
    for title, values in found.items():
        lines.append([title, *(spread(values[name], 1) for name in COLUMNS)])
        for name in ("ceiling", "marginal"):
            ratio = statistics.mean(values[name]) / statistics.mean(found[BASE][name])
            lines[-1].append(f"{ratio:.2f}")
    print(markdown(["", *COLUMNS, "ratio of ceilings", "ratio of marginals"], lines))


if __name__ == "__main__":
    main()
