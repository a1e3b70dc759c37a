"""Means and deviations of the figures of several runs, against NumPy."""

import json
import sys

import numpy as np
import pytest

from benchmarks import summary


def test_the_figures_of_runs_are_summarized(tmp_path, monkeypatch):
    runs = [
        {"psnr": 50.0, "k3": {"density": 0.5}, "steps": 7, "name": "a", "alone": 1, "ssim": None},
        {"psnr": 53.5, "k3": {"density": 0.75}, "steps": 7, "name": "a", "ssim": None},
        {"psnr": 51.0, "k3": {"density": 1.0}, "steps": 7, "name": "a", "ssim": None},
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
    assert found.keys() == {"count", "psnr", "k3", "steps", "name", "ssim"}
    assert (found["count"], found["steps"], found["name"], found["ssim"]) == (3, 7, "a", None)
    psnr, density = found["psnr"], found["k3"]["density"]
    assert psnr["runs"] == [50.0, 53.5, 51.0] and density["mean"] == 0.75
    assert psnr["mean"] == pytest.approx(np.mean(psnr["runs"]))
    assert psnr["std"] == pytest.approx(np.std(psnr["runs"], ddof=1))


def test_what_is_no_number_in_all_runs_is_left_out_unless_it_is_equal():
    runs = [
        {"mixed": None, "also": 1.0, "text": "a", "list": [1.0], "part": {"x": 1}, "same": [2]},
        {"mixed": 1.0, "also": None, "text": "b", "list": [2.0], "part": None, "same": [2]},
    ]
    assert summary.summary(runs) == {"same": [2]}
    assert summary.summary(runs[::-1]) == {"same": [2]}
