"""The table of short runs."""

from benchmarks.screen import table


def test_a_row_without_probes_leaves_its_cell_empty():
    row = {"name": "a", "seed": 0, "psnr": 30.0}
    rows = [{**row, "probes": {"hair": 0.9, "hat": 0.5}}, {**row, "name": "b", "probes": {}}]
    lines = table(["a", "b"], rows, (("PSNR dB", "psnr", 1),)).splitlines()
    assert lines[2:] == ["| a | 0 | 30.0 | 0.50 (hat) |", "| b | 0 | 30.0 |  |"]
