"""The benchmark of files, with an untrained model."""

import numpy as np

from benchmarks import compression
from tests.parameters import make_model


def test_a_row_has_the_bytes_of_files_and_of_codes(tiny_config):
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    row, line = compression.ours(make_model(tiny_config), images, "fixed")
    assert row.label == "pivq, fixed" and "(fixed code)" in line
    assert row.file and row.file > row.payload
