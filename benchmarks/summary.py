"""Summarizes the figures of several runs, such as those of different seeds.

    python -m benchmarks.summary --workdir runs/seed0 runs/seed1 runs/seed2 --output=seeds.json

Each number that `metrics.json` of all runs has becomes their mean, their standard deviation (of a
sample) and the values of the runs, in order; a value that is equal in all runs stays as it is.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import parser_for
from pivq_jax.common.files import write_json


def summary(values: list[Any]) -> Any:
    """Summarizes values of several runs: numbers, or dictionaries of what all of them have."""
    first = values[0]
    if isinstance(first, dict):
        names = [name for name in first if all(name in value for value in values)]
        return {name: summary([value[name] for value in values]) for name in names}
    if isinstance(first, int | float) and any(value != first for value in values):
        mean, std = np.mean(values), np.std(values, ddof=1)
        return {"mean": float(mean), "std": float(std), "runs": values}
    return first


def main() -> None:
    """Reads the runs and writes their summary."""
    parser = parser_for(__doc__)
    parser.add_argument("--workdir", type=Path, nargs="+", required=True, help="evaluated runs")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    runs = [json.loads((path / "metrics.json").read_text()) for path in options.workdir]
    write_json(options.output, {"count": len(runs), **summary(runs)})


if __name__ == "__main__":
    main()
