"""The benchmark of files, with an untrained model."""

import numpy as np

from benchmarks import compression
from tests.parameters import make_model


def test_a_row_is_named_after_the_code_that_its_file_has(tiny_config):
    """For two images a table of frequencies does not pay."""
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    row, line = compression.ours(make_model(tiny_config), images, "short")
    assert row.label == "pivq, fixed" and "(fixed code)" in line
    assert row.file and row.file > row.payload
