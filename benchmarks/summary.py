"""Summarizes the figures of several runs, such as those of different seeds.

    python -m benchmarks.summary --workdir runs/seed0 runs/seed1 runs/seed2 --output=seeds.json

Each number that `metrics.json` of all runs has becomes their mean, their standard deviation (of a
sample) and the values of the runs, in order; a value that is equal in all runs stays as it is, and
any other is left out.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import parser_for
from pivq_jax.common.files import write_json


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Summarizes the figures that all runs have; dictionaries of them may be nested."""
    found: dict[str, Any] = {}
    for name in runs[0]:
        if not all(name in run for run in runs):
            continue
        values = [run[name] for run in runs]
        if all(isinstance(value, dict) for value in values):
            found[name] = summary(values)
        elif all(value == values[0] for value in values):
            found[name] = values[0]
        elif all(isinstance(value, int | float) for value in values):
            mean, std = np.mean(values), np.std(values, ddof=1)
            found[name] = {"mean": float(mean), "std": float(std), "runs": values}
    return found


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
