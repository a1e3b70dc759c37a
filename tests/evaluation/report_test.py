"""`metrics.json` of a trained run against figures worked out here from its codes and pictures."""

import base64
import dataclasses
import html
import json
import math
import re
import shlex
import shutil
import sys
from typing import Any

import jax
import numpy as np
import pytest

import pivq_jax
from pivq_jax.data import load_dataset
from pivq_jax.data.sources import first_images
from pivq_jax.evaluation import figures, report
from pivq_jax.evaluation.session import Session
from pivq_jax.evaluation.verdict import verdict
from tests.parameters import with_settings

STAGES = (
    "reconstruction",
    "perceptual",
    "attributes",
    "samples",
    "distribution",
    "neighbours",
    "copies",
)


@pytest.fixture(scope="module")
def test_split(trained, commands):
    """uint8 [M, 32, 32, 3]."""
    path = trained.arguments[1].partition("=")[2]
    source = load_dataset(
        "image_folder", image_size=32, path=path, data_dir=commands.directory / "data"
    ).test
    return np.stack([source[i]["image"] for i in range(len(source))])


def test_nothing_is_left_out_and_features_are_named(trained):
    assert trained.metrics["left_out"] == {}  # the folder has no labels, so nothing to probe
    assert "VGG16" in trained.metrics["feature_network"]
    for names in figures.NAMES.values():
        asked = {n for n in names if not n.startswith(("prior", "probe"))}
        assert asked <= trained.metrics.keys()


def test_samples_and_baselines_are_measured_alike(trained):
    metrics = trained.metrics
    names = ("sample_images", "fid", "precision", "recall", "density", "coverage")
    parts = ("quadrants", "k3")
    compared = [{n: metrics[n] for n in (*names, *parts)}, *metrics["baselines"].values()]
    assert set(metrics["baselines"]) == {"training images", "averaged pairs"}
    for row in compared:
        for found in (row[part] for part in parts):
            assert tuple(found) == names[2:] and all(map(math.isfinite, found.values()))
        assert tuple(row) == (*names, *parts) and all(math.isfinite(row[n]) for n in names)
        assert all(0 <= row[n] <= 1 for n in ("precision", "recall", "coverage"))
    # A model of sixty steps draws worse faces than real ones are.
    assert metrics["baselines"]["training images"]["fid"] < metrics["fid"]


def test_report_is_one_page_with_every_picture(trained):
    folder = trained.workdir / "report"
    text = (folder / "index.html").read_text()
    pictures = sorted(path.stem for path in folder.glob("*.png"))
    expected = "atlas interpolations many_parents neighbours parents reconstructions samples"
    assert pictures == [*expected.split(), "training", "usage"]
    embedded = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    held = {base64.b64encode(path.read_bytes()).decode() for path in folder.glob("*.png")}
    assert set(embedded) == held
    body = re.sub(r"base64,[^\"]+", "", text.split("<body>")[1])
    assert "http" not in body  # nothing is loaded
    assert f"<td>{trained.metrics['psnr']:.3g}</td>" in text
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles[:3] == ["Verdict", "Command and config", "Model"]
    assert [html.escape(x) for x in verdict(trained.metrics)] == re.findall(
        r"<p>(.*?)</p>", text.split("<nav>")[0]
    )
    command, config = map(html.unescape, re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL))
    assert shlex.split(command)[1:3] == ["-m", "pivq_jax.main"]
    assert {*trained.arguments} <= {*shlex.split(command)}
    assert "data.image_size = 32\n" in config and f"<td>{pivq_jax.__version__}</td>" in text


def test_the_command_is_that_of_the_page_and_nothing_is_evaluated_again_for_it(
    trained_model, tmp_path, monkeypatch
):
    done: list[Session] = []
    monkeypatch.setattr(report, "STAGES", {"counted": lambda it: done.append(it) or {"psnr": 1.0}})
    session = Session(trained_model, load_dataset("random", image_size=16), tmp_path)
    kept = []
    for name in ("first", "second one"):
        monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", "-m", name])
        report.write_report(session)
        kept.append((tmp_path / "report" / "counted.json").read_bytes())
    text = html.unescape((tmp_path / "report" / "index.html").read_text())
    assert "<pre>python -m 'second one'</pre>" in text and "python -m first" not in text
    assert len(done) == 1 and kept[0] == kept[1]


@pytest.mark.slow
def test_a_stopped_evaluation_keeps_what_it_has(trained, trained_model, commands, tmp_path):
    """Computed again are only the stages that were lost, of another step, or left out."""
    workdir = tmp_path / "run"
    shutil.copytree(trained.workdir, workdir)
    (workdir / "metrics.json").unlink()
    folder = workdir / "report"
    (folder / "attributes.json").unlink()
    stale = json.loads((folder / "samples.json").read_text())
    stale["made_for"]["step"] = 59
    (folder / "samples.json").write_text(json.dumps(stale))
    marked = json.loads((folder / "distribution.json").read_text())
    marked["metrics"]["fid"] = 123.0  # would be lost if the stage ran again
    (folder / "distribution.json").write_text(json.dumps(marked))
    missing = json.loads((folder / "neighbours.json").read_text())
    missing.pop("metrics")
    missing["left_out"] = "a file was missing"
    (folder / "neighbours.json").write_text(json.dumps(missing))

    done = commands.run(*trained.arguments[:-1], f"--workdir={workdir}", "--mode=evaluate")
    assert done.code == 0, done.stderr
    again = re.findall(r"evaluating, \d of 7: (\w+)", done.stderr)
    assert again == ["attributes", "samples", "neighbours"]
    metrics = json.loads((workdir / "metrics.json").read_text())
    speed = {"sample_images_per_second": metrics["sample_images_per_second"]}  # measured again
    assert metrics == trained.metrics | {"fid": 123.0} | speed
    assert {path.stem for path in folder.glob("*.json")} == set(STAGES)


def test_a_stage_that_the_data_does_not_allow_is_left_out_with_its_reason(tiny_run):
    """16 pixels are too few for LPIPS."""
    metrics = tiny_run.metrics
    assert set(metrics["left_out"]) == {"perceptual"}
    assert "16x16 pixels" in metrics["left_out"]["perceptual"]
    assert "lpips" not in metrics and metrics["psnr"] > 0 and "fid" in metrics
    # Each row of the table says of how many images it is.
    rows = [metrics, *metrics["baselines"].values()]
    assert [row["sample_images"] for row in rows] == [40, 30, 40]


def test_a_stage_is_done_again_only_for_other_weights_images_or_settings(
    trained_model, tmp_path, monkeypatch
):
    done = []
    monkeypatch.setattr(report, "STAGES", {"counted": lambda it: done.append(it) or {"psnr": 1.0}})
    data = load_dataset("random", image_size=16)
    fewer = dataclasses.replace(data, test=first_images(data.test, 100))
    settings: dict[str, Any] = {"batch_size": 8, "samples": 40, "neighbours": 1}
    more = settings | {"samples": 41}
    older = dataclasses.replace(trained_model, step=trained_model.step - 1)
    # Those of another run may have the same step and seconds.
    params = jax.tree.map(lambda x: x + 1, trained_model.params)
    finetuned = dataclasses.replace(trained_model, params=params)
    near, less = (
        dataclasses.replace(trained_model, config=trained_model.config.with_fields(field))
        for field in ({"sample.nearest_of": 7}, {"sample.fraction": 0.3})
    )
    for model, images, asked, expected in (
        (trained_model, data, settings, 1),
        (trained_model, data, settings, 1),
        (trained_model, fewer, settings, 2),
        (trained_model, fewer, more, 3),
        (older, fewer, more, 4),
        (finetuned, data, settings, 5),
        (near, data, settings, 6),
        (less, data, settings, 7),
        (trained_model, data, settings, 8),
    ):
        session = Session(with_settings(model, **asked), images, tmp_path)
        metrics = report.write_report(session)
        assert len(done) == expected and metrics["psnr"] == 1.0
    kept = tmp_path / "report" / "counted.json"
    whole = json.loads(kept.read_text())
    assert "fraction" not in whole["made_for"]  # so that earlier reports, all of 0.5, still hold
    lost = [whole | {"pictures": held} for held in (["deleted"], 3)]
    for damaged in ({}, [], whole | {"metrics": 3}, *lost):
        kept.write_text(json.dumps(damaged))
        assert report.write_report(session)["psnr"] == 1.0
    assert len(done) == 13

    def interrupted(session):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "STAGES", {"counted": interrupted})
    with pytest.raises(KeyboardInterrupt):
        report.write_report(Session(with_settings(older, **asked), images, tmp_path))
    assert not kept.exists()  # beside which pictures of the other weights may stand


def test_only_pictures_of_an_evaluation_are_deleted(trained_model, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "STAGES", {})
    (folder := tmp_path / "report").mkdir()
    for name in ("atlas", "mine"):
        (folder / f"{name}.png").touch()
    data = load_dataset("random", image_size=16)
    report.write_report(Session(trained_model, data, tmp_path))
    assert {path.name for path in folder.iterdir()} == {"index.html", "mine.png"}


@pytest.mark.slow
def test_what_is_left_out_or_of_other_images_leaves_nothing_behind(
    trained, trained_model, small_folder, commands, tmp_path
):
    """Same run, other images, and more neighbours than test images: no figure of before."""
    workdir = tmp_path / "run"
    shutil.copytree(trained.workdir, workdir)
    done = commands.run(
        *trained.arguments[:-1],
        f"--workdir={workdir}",
        "--mode=evaluate",
        f"--config.data.path={small_folder}",
        "--config.evaluate.neighbours=50",
        "--config.evaluate.samples=20",
    )
    assert done.code == 0, done.stderr
    assert "warning: these are not the images, splits and labels of the training" in done.stdout
    assert "warning" not in trained.finished.stdout
    assert len(re.findall(r"evaluating, \d of 7: (\w+)", done.stderr)) == 7
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics["psnr"] != trained.metrics["psnr"] and "fid" not in metrics
    assert "too few for k = 50 neighbours" in metrics["left_out"]["distribution"]
    text = (workdir / "report" / "index.html").read_text()
    assert "too few for k = 50 neighbours" in text
    psnr = re.findall(r"<td>PSNR, dB</td><td>(.*?)</td>", text)
    assert psnr == [f"{metrics['psnr']:.3g}"]


def test_metrics_of_the_run(trained, test_split):
    metrics = trained.metrics
    assert metrics["step"] == 60 and metrics["images"] == len(test_split)
    assert metrics["real_images"] == len(test_split)
    assert (metrics["image_size"], metrics["num_codes"], metrics["codebook_size"]) == (32, 32, 512)
    assert metrics["train_images_per_second"] == pytest.approx(60 * 16 / metrics["train_seconds"])
    assert metrics["sample_images_per_second"] > 0


def test_psnr_and_l1_are_means_over_the_images_of_rounded_output(
    trained, trained_model, test_split
):
    codes = trained_model.encode(test_split.astype(np.float32) / 127.5 - 1)
    decoded = np.asarray(trained_model.decode(codes), np.float64)
    rounded = np.round(np.clip((decoded + 1) * 127.5, 0, 255))
    error = rounded - test_split
    psnr = 10 * np.log10(255**2 / np.mean(error**2, axis=(1, 2, 3)))
    # A pixel that lies on a rounding border may fall to either side.
    assert trained.metrics["psnr"] == pytest.approx(psnr.mean(), abs=1e-3)
    assert trained.metrics["l1"] == pytest.approx(np.mean(np.abs(error)) / 127.5, rel=1e-4)


def test_capacity_is_of_the_whole_test_split(trained, trained_model, test_split):
    metrics = trained.metrics
    codes = np.asarray(trained_model.encode(test_split.astype(np.float32) / 127.5 - 1))
    assert metrics["ceiling_bits"] == pytest.approx(math.log2(math.comb(512, 32)))
    shares = np.bincount(codes.ravel(), minlength=512) / len(codes)
    inner = shares[(shares > 0) & (shares < 1)]
    entropy = -(inner * np.log2(inner) + (1 - inner) * np.log2(1 - inner)).sum()
    expected = min(metrics["ceiling_bits"], entropy)
    assert metrics["marginal_bits"] == pytest.approx(expected, rel=1e-3)
    assert metrics["distinct_codes_per_image"] == 32
    assert abs(metrics["codes_used"] - np.sum(shares >= 0.001)) <= 1
    assert abs(metrics["constant_codes"] - np.sum(shares >= 0.9)) <= 1
