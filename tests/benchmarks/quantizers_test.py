"""The table of the comparison of quantizers."""

import json

from benchmarks import quantizers
from tests.conftest import ROOT

METRICS = (ROOT / "docs/tables/toon_faces.json").read_text()


def test_means_are_over_seeds_and_what_a_run_lacks_is_left_empty():
    run = json.loads(METRICS) | {"ssim": None}
    runs = {("nearest", 16): [run | {"psnr": 30.0}, run | {"psnr": 31.0}]}
    lines = quantizers.table(runs).splitlines()
    assert lines[0] == "|  | nearest, N = 16 |" and "| SSIM |  |" in lines
    assert "| PSNR dB | 30.50 ± 0.71 |" in lines
