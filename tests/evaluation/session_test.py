"""What a session makes once, and that it is the same whatever was asked for first."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pivq_jax.data import load_dataset
from pivq_jax.evaluation import session as session_module
from pivq_jax.evaluation.samples import Samples
from pivq_jax.evaluation.session import Session, Settings


@pytest.fixture
def session(monkeypatch) -> Any:
    """A session whose model is a stand-in; `encoded` and `sampled` count what is made."""
    config = SimpleNamespace(seed=3, model=SimpleNamespace(num_codes=2))
    settings = Settings(8, 20, "vgg", "", neighbours=5, lpips_path="")
    data = load_dataset("random", image_size=16)
    model = SimpleNamespace(config=config, kind="matching", log_lift=len)
    made = Session(model, data, settings, Path("nowhere"))
    made.encoded, made.sampled = [], []

    def encode(model, source, batch_size):
        made.encoded.append(len(source))
        return np.stack([source[i]["image"][0, 0, :2].astype(np.int32) for i in range(len(source))])

    def sample(model, codes, count, seed, batch_size, fraction, lift):
        assert lift == len(data.train)  # all images tell which codes go together
        made.sampled.append((len(codes), count, seed, fraction))
        return Samples(*(np.arange(count),) * 3)

    monkeypatch.setattr(session_module, "encode_split", encode)
    monkeypatch.setattr(session_module, "sample_recombined", sample)
    return made


def test_positional_codes_have_no_lift(session):
    session.model.kind = "positional"
    assert session.lift is None


def test_no_image_is_encoded_twice_but_those_of_an_unfinished_batch(session):
    expected = [session.dataset.train[i]["image"][0, 0, :2] for i in range(50)]
    for count in (20, 5, 50, 20):
        np.testing.assert_array_equal(session.pool_codes(count), expected[:count])
    assert session.encoded == [20, 50 - 16]


def test_codes_that_a_stage_has_are_kept(session):
    given = np.arange(60).reshape(30, 2)
    session.keep_codes(given)
    session.keep_codes(given[:10])  # fewer than there are
    np.testing.assert_array_equal(session.pool_codes(30), given)
    assert session.encoded == []


def test_samples_are_drawn_again_only_from_other_parents(session):
    assert len(session.samples.images) == 20
    assert len(session.recombined(20, 8).images) == 8
    assert session.sampled == [(20, 20, 3, 0.5)]
    session.recombined(20, 30)
    session.recombined(20, 8, fraction=0.25)
    session.recombined(30, 8)
    assert session.sampled[1:] == [(20, 30, 3, 0.5), (20, 8, 3, 0.25), (30, 8, 3, 0.5)]
