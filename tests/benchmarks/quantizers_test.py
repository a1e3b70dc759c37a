"""The comparison of quantizers: the configs of its runs, and its table."""

import ast
import json
import sys

import pytest

from benchmarks import quantizers
from pivq_jax.config import load_config
from pivq_jax.config.check import check_config
from tests.conftest import ROOT

METRICS = (ROOT / "docs/tables/toon_faces.json").read_text()


def parsed(text):
    """The value of a field."""
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Trains nothing: a run whose config passes has METRICS. Returns the commands of runs."""
    commands = []

    def run(command, check):
        names = dict(option.removeprefix("--").split("=", 1) for option in command[3:])
        fields = {name[7:]: parsed(x) for name, x in names.items() if name[:7] == "config."}
        check_config(load_config(names["config"]).with_fields(fields), training=False)
        workdir = tmp_path / names["workdir"].rpartition("/")[2]
        workdir.mkdir()
        (workdir / "metrics.json").write_text(METRICS)
        commands.append(fields)

    monkeypatch.setattr(quantizers.subprocess, "run", run)
    monkeypatch.chdir(ROOT)
    return commands


def test_each_kind_number_and_seed_is_trained_once(trained, monkeypatch, tmp_path, capsys):
    given = ["quantizers", f"--output={tmp_path}", "--codes", "8", "16", "--seeds", "0", "1"]
    monkeypatch.setattr(sys, "argv", given)
    quantizers.main()
    keys = {(x["quantizer.kind"], x["model.num_codes"], x["seed"]) for x in trained}
    assert len(keys) == len(trained) == 3 * 2 * 2
    head, _, psnr, *_ = capsys.readouterr().out.splitlines()
    assert head.startswith("|  | matching, N = 8 | nearest, N = 8 |") and psnr.count("±") == 6
    quantizers.main()
    assert len(trained) == 12  # they are there


def test_means_are_over_seeds_and_what_a_run_lacks_is_left_empty():
    run = json.loads(METRICS) | {"ssim": None}
    runs = {("nearest", 16): [run | {"psnr": 30.0}, run | {"psnr": 31.0}]}
    lines = quantizers.table(runs).splitlines()
    assert lines[0] == "|  | nearest, N = 16 |" and "| SSIM |  |" in lines
    assert "| PSNR dB | 30.50 ± 0.71 |" in lines
