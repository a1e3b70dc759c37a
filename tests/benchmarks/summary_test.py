"""Means and deviations of the figures of several runs, against NumPy."""

import json
import sys

import numpy as np
import pytest

from benchmarks import summary


def test_numbers_of_all_runs_are_summarized_and_what_is_equal_is_kept(tmp_path, monkeypatch):
    same = {"steps": 7, "name": "a", "ssim": None, "list": [2]}
    runs = [
        {"psnr": 50.0, "k3": {"density": 0.5}, "mixed": 1, "part": {"x": 1}, "alone": 1, **same},
        {"psnr": 53.5, "k3": {"density": 0.75}, "mixed": "b", "part": None, **same},
        {"psnr": 51.0, "k3": {"density": 1.0}, "mixed": None, "part": None, **same},
    ]
    folders = [tmp_path / str(number) for number in range(3)]
    for folder, run in zip(folders, runs, strict=True):
        folder.mkdir()
        (folder / "metrics.json").write_text(json.dumps(run))
    output = tmp_path / "seeds.json"
    given = ["--workdir", *map(str, folders), f"--output={output}"]
    monkeypatch.setattr(sys, "argv", ["summary", *given])
    summary.main()
    found = json.loads(output.read_text())
    psnr, density = found.pop("psnr"), found.pop("k3")["density"]
    assert found == {"count": 3, **same}
    assert psnr["runs"] == [50.0, 53.5, 51.0] and density["mean"] == 0.75
    assert psnr["mean"] == pytest.approx(np.mean(psnr["runs"]))
    assert psnr["std"] == pytest.approx(np.std(psnr["runs"], ddof=1))
