"""The tables of short runs: the configs of their rows, and what the rows say."""

import importlib
import json
import os
import runpy
import sys

import pytest

from benchmarks import ablation, runs, screen
from pivq_jax.config import load_config
from pivq_jax.config.check import check_config
from tests.conftest import ROOT

METRICS = json.loads((ROOT / "docs/tables/toon_faces.json").read_text())


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs the command of a table, which trains nothing: a row whose config passes has METRICS.

    Returns the number of rows that would have been trained.
    """
    trained = 0

    def run(config, fields, workdir, core):
        nonlocal trained
        assert os.environ["JAX_PLATFORMS"] == "cpu"  # a run has a core of it
        check_config(load_config(config).with_fields(fields), training=False)
        (workdir / "metrics.json").touch()
        trained += 1
        return METRICS

    def call(name: str, *arguments: str) -> int:
        before = trained
        monkeypatch.setattr(sys, "argv", [name, f"--output={tmp_path}", *arguments])
        runpy.run_path(str(ROOT / f"benchmarks/{name}.py"), run_name="__main__")
        return trained - before

    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    monkeypatch.setattr(screen, "run", run)
    monkeypatch.chdir(ROOT)
    return call


@pytest.mark.parametrize(
    "name, arguments",
    [("ablation", ()), ("faces", ("--data=photographs",)), ("rate_distortion", ())],
)
def test_the_config_of_every_row_is_accepted(name, arguments, command, tmp_path):
    names = set(importlib.import_module(f"benchmarks.{name}").ROWS)
    assert command(name, *arguments) == len(names)
    assert {row["name"] for row in screen.read_rows(tmp_path / "rows.jsonl")} == names
    assert command(name, *arguments) == 0  # the rows are there


def test_a_folder_of_runs_is_of_one_set_of_images(command, capsys):
    given = ["--only", "matched parents"]
    command("faces", "--data=one", *given)
    with pytest.raises(SystemExit):
        command("faces", "--data=another", *given)
    assert "has other settings than this command: give another --output" in capsys.readouterr().err


def test_rows_have_the_commit_at_which_their_run_began(command, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(screen, "commit", lambda: "a1")
    command("ablation", "--only=matching")
    assert "measured at a1\n\n" in capsys.readouterr().out
    (tmp_path / "rows.jsonl").unlink()
    monkeypatch.setattr(screen, "commit", lambda: "b2")
    command("ablation")
    commits = {row["name"]: row["commit"] for row in screen.read_rows(tmp_path / "rows.jsonl")}
    assert commits == {"matching": "a1", "nearest": "b2", "positional": "b2"}
    assert "measured at a1, b2\nWarning: these are several commits" in capsys.readouterr().out


def test_a_row_that_fails_does_not_stop_the_others(command, monkeypatch, tmp_path):
    def run(config, fields, workdir, core):
        if fields["quantizer.kind"] == "matching":
            raise SystemExit("failed: see output.txt")
        return METRICS

    monkeypatch.setattr(screen, "run", run)
    with pytest.raises(SystemExit, match="failed: see"):
        command("ablation")
    rows = screen.read_rows(tmp_path / "rows.jsonl")
    assert {row["name"] for row in rows} == {"nearest", "positional"}


def test_a_run_has_one_core(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, os\n"
        f"with open({str(tmp_path / 'metrics.json')!r}, 'w') as file:\n"
        "    json.dump([*os.sched_getaffinity(0)], file)\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(runs.sys, "executable", str(program))
    core = max(os.sched_getaffinity(0))
    assert runs.run("toon_faces", {}, tmp_path, core) == [core]


def test_a_row_without_probes_leaves_its_cell_empty():
    row = {"name": "a", "seed": 0, "psnr": 30.0}
    rows = [{**row, "probes": {"hair": 0.9, "hat": 0.5}}, {**row, "name": "b", "probes": {}}]
    lines = screen.table(["a", "b"], rows, (("PSNR dB", "psnr", 1),)).splitlines()
    assert lines[2:] == ["| a | 0 | 30.0 | 0.50 (hat) |", "| b | 0 | 30.0 |  |"]


def test_kinds_are_compared_by_means_over_seeds():
    row = dict.fromkeys([key for _, key, _ in ablation.COLUMNS], None) | {"name": "nearest"}
    first, second = {"beard": 0.5, "mouth": 0.5}, {"beard": 0.6, "mouth": 0.0}
    probes = [each | {"eyebrows": 1.0} for each in (first, second)]
    rows = [{**row, "psnr": 30.0 + i, "probes": found} for i, found in enumerate(probes)]
    lines = ablation.over_seeds(rows).splitlines()
    assert lines[0] == "|  | nearest |" and "| SSIM |  |" in lines
    assert "| PSNR dB | 30.50 ± 0.71 |" in lines
    assert lines[-1] == "| probes: beard / mouth / eyebrows | 0.55 / 0.25 / 1.00 |"
