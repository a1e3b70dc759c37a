"""Baselines without a model: the tables of their rows."""

import numpy as np

from benchmarks import baselines


def test_tables_have_means_and_ranges_of_draws():
    quality = dict.fromkeys(baselines.SPREAD, 0.5)
    rows = [
        {"name": "test images", "draw": 0, "copied_share": 0.25},
        *(
            {"name": "joined", "draw": i, "fid": fid, "copied_share": 0.5, **quality}
            | {"quadrants": quality}
            for i, fid in enumerate((0.01, 0.02, 0.06))
        ),
        {"name": "JPEG", "draw": 0, "bits": 1000.4, "psnr": 30.0, "lpips": 0.125, "rfid": 0.5},
    ]
    made, rebuilt = baselines.table(rows).split("\n\n")
    assert "| joined | 0.0300 (0.0100 to 0.0600) | 0.500 (0.500 to 0.500) |" in made
    assert "| test images |  |  |  |  |  |  |  |  |  | 0.250 |" in made
    assert rebuilt.splitlines()[2] == "| JPEG | 1000 | 30.00 | 0.1250 | 0.5000 |"
    assert np.ptp([line.count("|") for line in made.splitlines()]) == 0
