"""`metrics.json` of a trained run against figures worked out here from its codes and pictures."""

import base64
import dataclasses
import html
import json
import math
import re
import shlex

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


@pytest.fixture(scope="module")
def test_split(trained, commands):
    """uint8 [M, 32, 32, 3]."""
    path = trained.arguments[1].partition("=")[2]
    source = load_dataset(
        "image_folder", image_size=32, path=path, data_dir=commands.directory / "data"
    ).test
    return np.stack([source[i]["image"] for i in range(len(source))])


def test_no_figure_is_left_out_and_samples_and_baselines_are_measured_alike(trained, test_split):
    metrics = trained.metrics
    assert metrics["left_out"] == {}  # the folder has no labels, so nothing to probe
    assert "VGG16" in metrics["feature_network"] and metrics["step"] == 60
    for group in figures.NAMES.values():
        asked = {name for name in group if not name.startswith(("prior", "probe"))}
        assert asked <= metrics.keys()
    assert metrics["images"] == metrics["real_images"] == len(test_split)
    assert (metrics["image_size"], metrics["num_codes"], metrics["codebook_size"]) == (32, 32, 512)
    assert metrics["train_images_per_second"] == pytest.approx(60 * 16 / metrics["train_seconds"])
    assert metrics["sample_images_per_second"] > 0
    names, parts = ["fid", "precision", "recall", "density", "coverage"], ["quadrants", "k3"]
    assert set(metrics["baselines"]) == {"training images", "averaged pairs"}
    for row in metrics["baselines"].values():
        assert list(row) == ["sample_images", *names, *parts]
    for row in (metrics, *metrics["baselines"].values()):
        assert all(math.isfinite(row[name]) for name in names)
        for part in parts:
            assert list(row[part]) == names[1:] and all(map(math.isfinite, row[part].values()))
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
    said = re.findall(r"<p>(.*?)</p>", text.split("<nav>")[0])
    assert [html.escape(x) for x in verdict(trained.metrics)] == said
    command, config = map(html.unescape, re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL))
    assert shlex.split(command)[1:3] == ["-m", "pivq_jax.main"]
    assert {*trained.arguments} <= {*shlex.split(command)}
    assert "data.image_size = 32\n" in config and f"<td>{pivq_jax.__version__}</td>" in text


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
    model = with_settings(trained_model, batch_size=8, samples=40, neighbours=1)
    other_params = jax.tree.map(lambda x: x + 1, model.params)
    for changed, images, expected in (
        (model, data, 1),
        (model, data, 1),
        (model, fewer, 2),
        (with_settings(model, samples=41), fewer, 3),
        (dataclasses.replace(model, step=model.step - 1), data, 4),
        # Weights of another run may have the same step and seconds.
        (dataclasses.replace(model, params=other_params), data, 5),
        (model, data, 6),
        (
            dataclasses.replace(model, config=model.config.with_fields({"sample.nearest_of": 7})),
            data,
            7,
        ),
    ):
        session = Session(changed, images, tmp_path)
        assert report.write_report(session)["psnr"] == 1.0 and len(done) == expected
    kept = tmp_path / "report" / "counted.json"
    whole = json.loads(kept.read_text())
    for damaged in ([], whole | {"metrics": 3}, whole | {"pictures": ["deleted"]}):
        kept.write_text(json.dumps(damaged))
        assert report.write_report(session)["psnr"] == 1.0
    assert len(done) == 10

    def interrupted(session):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "STAGES", {"counted": interrupted})
    with pytest.raises(KeyboardInterrupt):
        report.write_report(Session(model, data, tmp_path))
    assert not kept.exists()  # beside which pictures of the other weights may stand


def test_only_pictures_of_an_evaluation_are_deleted_and_other_images_are_warned_of(
    trained_model, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(report, "STAGES", {})
    (folder := tmp_path / "report").mkdir()
    for name in ("atlas", "mine"):
        (folder / f"{name}.png").touch()
    data = load_dataset("random", image_size=16)
    report.evaluate_model(Session(trained_model, data, tmp_path))
    assert {path.name for path in folder.iterdir()} == {"index.html", "mine.png"}
    assert "warning: these are not the images" in capsys.readouterr().out


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
