"""Baselines without a model: the rows of a small folder, and their tables."""

import json
import sys

import numpy as np
import pytest

from benchmarks import baselines
from pivq_jax.common.pictures import save_png


@pytest.fixture
def folder(tmp_path):
    """Two hundred images of a few waves, of which some twenty are for test."""
    rng = np.random.default_rng(0)
    at = np.linspace(0, 2 * np.pi, 64)
    for number in range(200):
        phases = rng.uniform(0, 2 * np.pi, (2, 3))
        image = 128 + 55 * np.sin(2 * at[:, None, None] + phases[0])
        image = (
            image + 55 * np.sin(3 * at[None, :, None] + phases[1]) + rng.normal(0, 3, (64, 64, 1))
        )
        save_png(tmp_path / "images" / f"{number}.png", np.clip(image, 0, 255).astype(np.uint8))
    return tmp_path / "images"


@pytest.mark.slow
def test_rows_are_measured_once_and_the_command_goes_on(folder, tmp_path, monkeypatch, capsys):
    arguments = ["baselines", "--config=image_folder:smoke", f"--data={folder}"]
    arguments += ["--samples=12", "--bits=64", f"--output={tmp_path}/rows"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(baselines, "DRAWS", 1)
    monkeypatch.setattr(baselines, "FORMATS", {"JPEG": "jpg"})
    baselines.main()
    path = tmp_path / "rows" / "rows.jsonl"
    rows = {row["name"]: row for row in map(json.loads, path.read_text().splitlines())}
    assert rows["training images"]["fid"] > 0 and "copied_share" not in rows["training images"]
    assert rows["pixels joined, any two"]["copied_share"] > rows["test images"]["copied_share"]
    assert rows["the same, quantized"]["bits"] == 64
    assert rows["the same, quantized"]["psnr"] <= rows["32 components"]["psnr"]
    assert set(rows["pixels averaged, matched"]["quadrants"]) == set(baselines.SPREAD)
    table = capsys.readouterr().out
    assert "| pixels joined, any two |" in table and "| JPEG |" in table

    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in lines[:-1]))  # as after an interruption
    baselines.main()
    again = path.read_text().splitlines()
    assert again[:-1] == lines[:-1] and json.loads(again[-1])["name"] == "JPEG"
    monkeypatch.setattr(sys, "argv", [*arguments, "--samples=13"])
    with pytest.raises(SystemExit):
        baselines.main()


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
