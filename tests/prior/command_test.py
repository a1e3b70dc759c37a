"""`python -m pivq_jax.prior`: its words, a prior trained, sampled and evaluated, and mistakes."""

import dataclasses
import json
import os
import re
import shutil
import signal

import jax
import numpy as np
import pytest

import pivq_jax
from pivq_jax.commands.task import Task
from pivq_jax.common.errors import InputError
from pivq_jax.config import load_config
from pivq_jax.evaluation import stages
from pivq_jax.prior import __main__ as command
from tests.conftest import start_pair
from tests.main_test import CODES, ENTRIES, assert_refused


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["train", "--workdir=/no/run"], ["holds no run (no config.json): train first"]),
        (["train", "--pretrained=toon_faces"], ["published model: give the --workdir of a run"]),
        (["train", "--output=x", "--workdir=/no/run"], ["--output is for sample, not train"]),
        (["--workdir=/no/run"], ["train or sample or evaluate"]),
    ],
)
def test_mistakes_get_one_line(commands, tmp_path, arguments, words):
    assert_refused(commands.run(*arguments, module="prior", directory=tmp_path), *words)
    assert not list(tmp_path.iterdir())


def test_help_says_what_the_words_do(commands):
    done = commands.run("train", "--help", module="prior")
    assert done.code == 0 and not done.stderr
    assert re.findall(r"^  (\w+) {2,}\w", done.stdout, re.MULTILINE) == [*command.COMMANDS]


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
    alone = dataclasses.replace(model, parents=None)  # as that of a run
    command.sample(Task(config, tmp_path / "run", alone))
    assert os.listdir(tmp_path / "run") == ["prior_samples.png"]


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


# Steps take the place of opening the model, after which those of the prior begin.
PRIOR = """
import sys, time
from pathlib import Path
from pivq_jax.prior import __main__ as command
from pivq_jax.commands import task
from pivq_jax.common.stopping import Interrupted, stop_requests

def load(workdir):
    with stop_requests() as asked:
        for step in range(1, 100_000):
            time.sleep(0.01)
            if step == 20:
                (workdir / "{index}").touch()
            if stop := asked():
                raise Interrupted(stop, step)

task.load = load
how = "--distributed={how}"
sys.argv = ["", "train", "--config=toon_faces:smoke", "--workdir={workdir}", how]
command.run()
"""


@pytest.mark.slow
def test_several_processes_that_train_a_prior_stop_at_one_step(commands, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(load_config("toon_faces:smoke").to_dict()))
    pair = start_pair(
        lambda index, how: commands.start(code=PRIOR.format(index=index, how=how, workdir=tmp_path))
    )
    ready = [tmp_path / name for name in "01"]
    pair[1].kill_when(lambda: all(path.exists() for path in ready), signal.SIGTERM)
    done = [command.wait() for command in pair]
    assert [one.code for one in done] == [143, 143], [one.stderr for one in done]
    last = [one.stdout.splitlines()[-1] for one in done]
    assert last[0] == last[1] and last[0].startswith("stopped at step ")
