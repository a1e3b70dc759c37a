"""`python -m pivq_jax.prior`: its words, a prior trained, sampled and evaluated, and mistakes."""

import dataclasses
import json
import os
import shutil

import jax
import numpy as np
import pytest

import pivq_jax
from pivq_jax.commands.task import Task
from pivq_jax.common.errors import InputError
from pivq_jax.evaluation import stages
from pivq_jax.prior import __main__ as command
from tests.main_test import CODES, ENTRIES, assert_refused


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["train", "--workdir=/no/run"], ["holds no run", "train first"]),
        (["train", "--output=x", "--workdir=/no/run"], ["--output is for sample, not train"]),
        (["--workdir=/no/run"], ["train or sample or evaluate"]),
    ],
)
def test_mistakes_get_one_line(commands, tmp_path, arguments, words):
    assert_refused(commands.run(*arguments, module="prior", directory=tmp_path), *words)
    assert not list(tmp_path.iterdir())


def test_samples_of_the_prior_have_the_temperature_asked_for(with_parents, tmp_path, monkeypatch):
    model, drawn = dataclasses.replace(with_parents, prior=object()), []

    def draw(session, count, temperature, first=0):
        drawn.append((count, temperature, first))
        return model.parents[:count]

    monkeypatch.setattr(command, "draw_sets", draw)
    monkeypatch.setattr(stages, "MOST_IN_GRID", 8)
    config = model.config.with_fields({"sample.count": 8, "sample.temperature": 0.7})
    command.sample(Task(config, tmp_path, model))
    more = config.with_fields({"sample.count": 11})
    out = tmp_path / "out"
    command.sample(Task(more, tmp_path, model), output=str(out))
    assert drawn == [(8, 0.7, 0), (8, 0.7, 0), (3, 0.7, 8)]
    assert sorted(os.listdir(tmp_path)) == ["out", "prior_samples.png"]
    assert len(os.listdir(out)) == 11
    with pytest.raises(InputError, match="no prior: train one"):
        command.sample(Task(config, tmp_path, with_parents))


@pytest.mark.slow
def test_a_prior_is_trained_and_sampled(commands, trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained.workdir, workdir)
    arguments = [*trained.arguments[:-1], f"--workdir={workdir}"]
    refused = commands.run("sample", *arguments, module="prior")
    assert refused.code == 2 and "train one with python -m pivq_jax.prior train" in refused.stderr
    settings = ["--config.prior.steps=20", "--config.prior.width=16"]
    done = commands.run("train", *arguments, *settings, module="prior")
    assert done.code == 0, done.stderr
    assert "bits a validation set" in done.stdout and "step     20/20" in done.stdout
    done = commands.run("sample", *arguments, "--config.sample.count=8", module="prior")
    assert done.code == 0, done.stderr
    assert (workdir / "prior_samples.png").exists()
    done = commands.run("evaluate", *arguments, module="prior")
    assert done.code == 0 and "evaluating, 8 of 8: prior" in done.stderr, done.stderr
    assert json.loads((workdir / "metrics.json").read_text())["prior_bits"] > 0
    assert "<h2>Prior</h2>" in (workdir / "report" / "index.html").read_text()
    model = pivq_jax.load(workdir)
    codes = np.asarray(model.sample_prior(jax.random.key(0), 5, temperature=0.5))
    assert codes.shape == (5, CODES) and all(len({*row}) == CODES for row in codes.tolist())
    part = codes[:, : CODES // 2]
    whole = np.asarray(model.complete_sets(part, jax.random.key(1), passes=2))
    for some, every in zip(part.tolist(), whole.tolist(), strict=True):
        assert {*some} <= {*every}
    for bad in (codes[0], codes.astype(float), codes + ENTRIES, codes[:, [0, 0]]):
        with pytest.raises(ValueError, match="codes"):
            model.complete_sets(bad, jax.random.key(0))
    with pytest.raises(ValueError, match="temperature = 0"):
        model.sample_prior(jax.random.key(0), 1, temperature=0)
    with pytest.raises(ValueError, match="count = 0"):
        model.sample_prior(jax.random.key(0), 0)
