"""Trackers: what they are given is read back from their files, without a network."""

import json
import sqlite3

import numpy as np
import pytest
from PIL import Image

from pivq_jax.common.errors import InputError
from pivq_jax.training import logs
from pivq_jax.training.cost import Clock
from pivq_jax.training.logs import TrainingLog, check_tracker
from tests.conftest import read_lines


def test_a_tracker_that_is_missing_is_refused_with_its_extra(monkeypatch):
    check_tracker("")
    monkeypatch.setattr(logs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--tracker=trackio .*pip install '\.\[trackio\]'"):
        check_tracker("trackio")


def test_trackio_has_what_the_log_has_and_goes_on_with_its_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # it is read at the first import
    pytest.importorskip("trackio")
    picture = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    workdir = tmp_path / "faces"
    with TrainingLog(workdir, 0, 30, Clock(), "trackio") as log:
        log.write(10, {"loss": 1.5, "psnr": 20.0}, batch_size=8)
        log.write_evaluation(10, {"psnr": 21.0}, {"samples": picture}, 2.5)
    with TrainingLog(workdir, 10, 30, Clock(), "trackio") as log:
        log.write(20, {"loss": 0.5, "psnr": 22.0}, batch_size=8)

    with sqlite3.connect(tmp_path / "trackio" / "pivq_jax.db") as file:
        rows = file.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    assert {name for name, _, _ in rows} == {"faces"}
    found = [(step, json.loads(metrics)) for _, step, metrics in rows]
    losses = [(step, values["train/loss"]) for step, values in found if "train/loss" in values]
    assert losses == [(10, 1.5), (20, 0.5)]
    assert [values["evaluation/psnr"] for _, values in found if "evaluation/psnr" in values] == [21]
    [path] = (tmp_path / "trackio" / "media").rglob("*.png")
    np.testing.assert_array_equal(np.asarray(Image.open(path).convert("RGB")), picture)
    lines = read_lines(workdir / "log.jsonl")
    named = [{f"train/{name}": value for name, value in line.items()} for line in lines]
    for line, (step, values) in zip(named, (found[0], found[-1]), strict=True):
        assert line == {"train/step": step, **values}
