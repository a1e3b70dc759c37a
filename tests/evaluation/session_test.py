"""What a session makes once, and that it is the same whatever was asked for first."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from pivq_jax.config.sections import EvaluateConfig
from pivq_jax.data import load_dataset
from pivq_jax.data.sources import first_images
from pivq_jax.evaluation import session as session_module
from pivq_jax.evaluation.session import Draw, Session
from pivq_jax.sampling import CodeSpace
from pivq_jax.training.steps import Draw as TrainingDraw


@pytest.fixture
def session(monkeypatch) -> Any:
    """A session whose model is a stand-in; `encoded` and `sampled` count what is made."""
    sample_config = SimpleNamespace(nearest_of=7, fraction=0.3, spread=0.2)
    config = SimpleNamespace(
        seed=3,
        model=SimpleNamespace(num_codes=2),
        sample=sample_config,
        evaluate=EvaluateConfig(batch_size=8, samples=20),
    )
    data = load_dataset("random", image_size=16)
    model = SimpleNamespace(config=config, space=CodeSpace(2, 4), codebook=None, log_lift=len)
    made = Session(model, data, Path("nowhere"))
    made.encoded, made.sampled, made.keys = [], [], []

    def encode(model, source):
        made.encoded.append(len(source))
        return np.stack([source[i]["image"][0, 0, :2].astype(np.int32) for i in range(len(source))])

    def sample(space, codebook, codes, count, key, size, parents, fraction, lift, nearest, spread):
        assert (nearest, spread) == (config.sample.nearest_of, config.sample.spread)
        assert lift == len(data.train)  # all images tell which codes go together
        made.sampled.append((len(codes), count, parents, fraction))
        made.keys.append(key)
        return np.arange(count), np.arange(count)

    monkeypatch.setattr(session_module, "encode_split", encode)
    monkeypatch.setattr(session_module, "recombine_at_random", sample)
    monkeypatch.setattr(session_module, "decode_batched", lambda model, codes: codes)
    return made


def test_no_two_purposes_share_a_key(session):
    root = jax.random.key(session.seed)
    samples = [root, *jax.random.split(root)]  # of all, of parents and of exchanges
    training = [jax.random.fold_in(root, draw) for draw in TrainingDraw]
    own = {int(jax.random.bits(session.key(draw))) for draw in Draw}
    assert len(own) == len(Draw)
    assert own.isdisjoint(int(jax.random.bits(key)) for key in (*samples, *training))
    for _ in range(2):
        assert len(session.samples.images) == 20
    assert session.sampled == [(len(session.dataset.train), 20, 2, 0.3)]  # once
    assert [int(jax.random.bits(key)) for key in session.keys] == [int(jax.random.bits(root))]
    session.recombined(5, jax.random.key(0), 3)  # which contribute equally
    assert session.sampled[1:] == [(len(session.dataset.train), 5, 3, None)]


def test_the_pool_is_encoded_once(session):
    session.pool = first_images(session.dataset.train, 50)
    expected = [session.dataset.train[i]["image"][0, 0, :2] for i in range(50)]
    for _ in range(2):
        np.testing.assert_array_equal(session.pool_codes, expected)
    assert session.encoded == [50] and len(session.training_images) == 20


def test_a_check_uses_the_first_images_of_each_split(session):
    model, data = session.model, session.dataset
    model.config.evaluate = EvaluateConfig(batch_size=8, samples=20, images=12)
    checked = Session(model, data, Path("nowhere"))
    assert checked.whole is data
    for whole, used in (
        (data.train, checked.pool),
        (data.train, checked.training_images),
        (data.validation, checked.dataset.validation),
        (data.test, checked.dataset.test),
    ):
        assert len(used) == 12 < len(whole)
        np.testing.assert_array_equal(used[11]["image"], whole[11]["image"])
    assert len(checked.pool_codes) == 12 and checked.dataset.factors == data.factors


def test_images_of_a_few_samples_are_kept_and_features_are_of_all(session, monkeypatch):
    monkeypatch.setattr(session_module, "KEPT", 6)
    monkeypatch.setattr(
        session_module, "decode_batches", lambda model, codes: iter(np.split(codes, 2))
    )
    session.extractor = SimpleNamespace(extract_all=lambda batches, total: [*batches])
    assert session.samples.images.tolist() == [*range(6)] and len(session.samples.codes) == 20
    assert np.concatenate(session.sample_features).tolist() == [*range(20)]
