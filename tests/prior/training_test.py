"""The prior learns what depends on what, continues bit for bit, and belongs to its codes."""

import contextlib
import dataclasses
import itertools
import json
import shutil
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pivq_jax.common.errors import InputError
from pivq_jax.common.stopping import Interrupted
from pivq_jax.config.sections import PriorConfig
from pivq_jax.inference.saved_prior import load_prior
from pivq_jax.prior import training as module
from pivq_jax.prior.training import train_prior
from pivq_jax.sampling import CodeSpace
from tests.conftest import checkpoint_steps

K = 16
SPACE, CODEBOOK = CodeSpace(3, K), jnp.zeros((K, 2))
SETTINGS = PriorConfig(width=16, depth=1, heads=2, steps=80, batch_size=64, learning_rate=1e-2)
SHORT = dataclasses.replace(SETTINGS, steps=4)


def stopped_at(step, number):
    """Takes the place of `stop_requests`."""

    @contextlib.contextmanager
    def requests():
        calls = itertools.count()  # the first is before the first step
        yield lambda: number if next(calls) == step else 0

    return requests


def draw(seed: int, count: int) -> np.ndarray:
    """Sets of three codes, one of 0 to 7 and two that follow from it: 3 bits each."""
    first = np.random.default_rng(seed).integers(0, 8, count)
    return np.stack([first, 8 + first // 2, 12 + first // 2], axis=1).astype(np.int32)


TRAIN, VALIDATION = draw(0, 400), draw(1, 100)


def run(directory, settings=SETTINGS, train=TRAIN, data="faces"):
    return train_prior(
        settings, SPACE, CODEBOOK, train, VALIDATION, directory, seed=0, model_step=7, data=data
    )


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    directory = tmp_path_factory.mktemp("prior")
    return directory, run(directory, SHORT)


def test_what_is_loaded_is_what_was_trained(short):
    directory, prior = short
    loaded = load_prior(directory, SPACE, CODEBOOK, model_step=7)
    assert loaded.bits == prior.bits and loaded.network == prior.network
    assert loaded.finished and prior.finished
    jax.tree.map(np.testing.assert_array_equal, loaded.params, prior.params)
    # None if the model was trained on, or has other codes.
    assert load_prior(directory, SPACE, CODEBOOK, model_step=8) is None
    assert load_prior(directory, SPACE, CODEBOOK + 1, model_step=7) is None


@pytest.mark.slow
def test_a_stopped_training_continues_bit_for_bit(tmp_path, monkeypatch, capsys):
    whole = run(tmp_path / "whole")
    assert 3 - 0.1 < whole.bits < 4  # independent codes would cost over 7
    capsys.readouterr()
    directory = tmp_path / "stopped"
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="stopped at step 50"):
        patch.setattr(module, "stop_requests", stopped_at(50, signal.SIGINT))
        run(directory)
    assert not load_prior(directory, SPACE, CODEBOOK, model_step=7).finished
    again = run(directory)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("/")[0].split()[1] for line in lines[:9]] == [*map(str, range(4, 37, 4))]
    assert again.bits == whole.bits
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)


def test_a_prior_without_a_validation_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "stop_requests", stopped_at(2, signal.SIGINT))
    with pytest.raises(Interrupted):
        run(tmp_path)
    assert checkpoint_steps(tmp_path) == [2]
    assert load_prior(tmp_path, SPACE, CODEBOOK, model_step=7) is None


def test_a_stop_saves_no_prior_that_has_diverged(tmp_path, monkeypatch):
    def diverged(network, params, codes, key):
        return jnp.full(len(codes), jnp.nan)

    monkeypatch.setattr(module, "prior_loss", diverged)
    monkeypatch.setattr(module, "stop_requests", stopped_at(2, signal.SIGINT))
    with pytest.raises(FloatingPointError, match="bits of the prior are nan at step 2: lower"):
        run(tmp_path)
    assert checkpoint_steps(tmp_path) == []


def test_a_prior_of_other_codes_is_refused(short, tmp_path):
    directory, _ = short
    for settings, train, data in ((SHORT, TRAIN[::-1], "other faces"), (SETTINGS, TRAIN, "faces")):
        with pytest.raises(InputError, match=f"of other codes or settings: delete {directory} to"):
            run(directory, settings, train, data)
    unlabelled = Path(shutil.copytree(directory, tmp_path / "copy"))
    (unlabelled / "prior.json").unlink()
    with pytest.raises(InputError, match=f"of other codes or settings: delete {unlabelled} to"):
        run(unlabelled, SHORT)
    assert load_prior(unlabelled, SPACE, CODEBOOK, model_step=7) is None


def test_a_training_continues_with_other_rounding_and_with_labels(short, tmp_path):
    directory, prior = Path(shutil.copytree(short[0], tmp_path / "prior")), short[1]
    assert run(directory, SHORT, train=TRAIN[::-1]).bits == prior.bits
    assert run(directory, SHORT, train=TRAIN[::-1], data="labelled faces").bits == prior.bits


def test_a_damaged_prior_is_refused_and_to_be_deleted(short, tmp_path):
    directory = Path(shutil.copytree(short[0], tmp_path / "prior"))
    held = json.loads((directory / "prior.json").read_text())
    incomplete = {name: value for name, value in held.items() if name != "heads"}
    for damaged, words in ((held | {"width": "x"}, "prior.width = .*"), (incomplete, "'heads'")):
        (directory / "prior.json").write_text(json.dumps(damaged))
        with pytest.raises(InputError, match=rf"prior\.json is damaged \({words}\): delete"):
            load_prior(directory, SPACE, CODEBOOK, model_step=7)
    (directory / "prior.json").write_text(json.dumps(held))
    for step in checkpoint_steps(directory):
        (directory / "checkpoints" / str(step) / "state" / "_METADATA").write_text("{")
    with pytest.raises(InputError, match=f"see the lines above, and delete {directory}$"):
        load_prior(directory, SPACE, CODEBOOK, model_step=7)
