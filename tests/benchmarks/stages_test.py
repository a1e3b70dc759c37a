"""Benchmarks of models with several stages: right figures, or a refusal before any work."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import conflicts, exchange
from pivq_jax.config import load_config
from pivq_jax.model.quantizer import assign_in_stages, match_latents, place_vectors

STAGES, LATENTS, ENTRIES = 2, 4, 12  # entries of a stage


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["matching", "nearest"])
def test_conflicts_are_those_among_the_entries_of_each_stage(kind):
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(3, LATENTS, 4)).astype(np.float32)
    own = place_vectors(LATENTS, 4)[rng.integers(0, LATENTS, STAGES * ENTRIES)]
    codebook = np.concatenate([own, rng.normal(size=(STAGES * ENTRIES, 4))], 1).astype(np.float32)
    given = jnp.asarray(latents), jnp.asarray(codebook), kind, match_latents, STAGES
    indices, _, targets, _ = assign_in_stages(*given)
    found = conflicts.conflicts(targets, jnp.asarray(codebook), kind, STAGES)
    np.testing.assert_array_equal(found["codes"], indices)

    apart = np.square(np.asarray(targets)[:, :, None] - codebook).sum(-1)  # [B, N, K]
    stage_of = np.arange(STAGES * ENTRIES) // ENTRIES
    apart[:, np.repeat(np.arange(STAGES), LATENTS)[:, None] != stage_of] = np.inf
    nearest = apart.argmin(-1)
    counts = [np.bincount(row, minlength=STAGES * ENTRIES) for row in nearest]
    assert found["distinct"].tolist() == [int((count > 0).sum()) for count in counts]
    assert found["shared"].tolist() == [int(count[count > 1].sum()) for count in counts]
    assert found["moved"].tolist() == (nearest != np.asarray(indices)).sum(1).tolist()
    np.testing.assert_allclose(found["least"], apart.min(-1).sum(1), rtol=1e-4)
    cost = np.take_along_axis(apart, np.asarray(indices)[..., None], -1).sum((1, 2))
    np.testing.assert_allclose(found["cost"], cost, rtol=1e-4)


@pytest.fixture
def no_work(monkeypatch):
    """Fails if a run is opened or a data set prepared."""

    def work(*_):
        raise AssertionError("work began")

    monkeypatch.setattr(exchange, "dataset_from_config", work)
    monkeypatch.setattr(exchange.pivq_jax, "load", work)


@pytest.mark.parametrize(
    "config, message", [("faces:smoke", "has several stages"), ("toon_faces:nearest", "nearest")]
)
def test_exchange_refuses_any_run_before_it_measures_the_first(
    config, message, tmp_path, monkeypatch, no_work
):
    for name, each in (("good", "toon_faces"), ("bad", config)):
        (tmp_path / name).mkdir()
        values = load_config(each).to_dict()
        (tmp_path / name / "config.json").write_text(json.dumps(values))
    runs = [str(tmp_path / name) for name in ("good", "bad")]
    monkeypatch.setattr(sys, "argv", ["exchange", "--workdir", *runs])
    with pytest.raises(SystemExit, match=message):
        exchange.main()
