"""What a session makes once, and that it is the same whatever was asked for first."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from pivq_jax.data import load_dataset
from pivq_jax.evaluation import session as session_module
from pivq_jax.evaluation.samples import Samples
from pivq_jax.evaluation.session import Draw, Session, Settings
from pivq_jax.sampling import CodeSpace
from pivq_jax.training.steps import Draw as TrainingDraw


@pytest.fixture
def session(monkeypatch) -> Any:
    """A session whose model is a stand-in; `encoded` and `sampled` count what is made."""
    sample_config, model_config = SimpleNamespace(nearest_of=7), SimpleNamespace(num_codes=2)
    config = SimpleNamespace(seed=3, model=model_config, sample=sample_config)
    settings = Settings(8, 20, "vgg", "", neighbours=5, lpips_path="")
    data = load_dataset("random", image_size=16)
    model = SimpleNamespace(config=config, space=CodeSpace(2, 4), log_lift=len)
    made = Session(model, data, settings, Path("nowhere"))
    made.encoded, made.sampled, made.keys = [], [], []

    def encode(model, source, batch_size):
        made.encoded.append(len(source))
        return np.stack([source[i]["image"][0, 0, :2].astype(np.int32) for i in range(len(source))])

    def sample(model, codes, count, key, batch_size, fraction, lift, nearest_of):
        assert nearest_of == config.sample.nearest_of
        assert lift == len(data.train)  # all images tell which codes go together
        made.sampled.append((len(codes), count, fraction))
        made.keys.append(key)
        return Samples(*(np.arange(count),) * 3)

    monkeypatch.setattr(session_module, "encode_split", encode)
    monkeypatch.setattr(session_module, "sample_recombined", sample)
    return made


def test_no_two_purposes_share_a_key(session):
    root = jax.random.key(session.seed)
    samples = [root, *jax.random.split(root)]  # of all, of parents and of exchanges
    training = [jax.random.fold_in(root, draw) for draw in TrainingDraw]
    own = {int(jax.random.bits(session.key(draw))) for draw in Draw}
    assert len(own) == len(Draw)
    assert own.isdisjoint(int(jax.random.bits(key)) for key in (*samples, *training))
    assert len(session.samples.images) == 20
    assert [int(jax.random.bits(key)) for key in session.keys] == [int(jax.random.bits(root))]


def test_positional_codes_have_no_lift(session):
    session.model.space = CodeSpace(2, 4, "positional")
    assert session.lift is None


def test_the_pool_is_encoded_once(session, monkeypatch):
    monkeypatch.setattr(session_module, "POOL_IMAGES", 50)
    expected = [session.dataset.train[i]["image"][0, 0, :2] for i in range(50)]
    for _ in range(2):
        np.testing.assert_array_equal(session.pool_codes, expected)
    assert session.encoded == [50] and len(session.pool) == 50
    assert len(session.training_images) == 20


def test_codes_that_a_stage_has_are_kept(session):
    session.pool_codes = np.arange(60).reshape(30, 2)
    assert len(session.pool_codes) == 30 and session.encoded == []


def test_samples_are_drawn_again_only_if_they_are_others(session):
    count = len(session.dataset.train)
    assert len(session.samples.images) == 20
    assert len(session.recombined(8).images) == 8
    assert session.sampled == [(count, 20, 0.5)]
    session.recombined(30)
    session.recombined(8, fraction=0.25)
    assert session.sampled[1:] == [(count, 30, 0.5), (count, 8, 0.25)]
