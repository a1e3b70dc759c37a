"""The comparison of rules of exchange refuses runs that it is not for before any work."""

import json
import sys

import pytest

from benchmarks import exchange
from pivq_jax.config import load_config


@pytest.fixture
def no_work(monkeypatch):
    """Fails if a run is opened or a data set prepared."""

    def work(*_):
        raise AssertionError("work began")

    monkeypatch.setattr(exchange, "dataset_from_config", work)
    monkeypatch.setattr(exchange.pivq_jax, "load", work)


def test_exchange_refuses_any_run_before_it_measures_the_first(
    tmp_path, monkeypatch, no_work, capsys
):
    for name, config in (("good", "toon_faces"), ("bad", "toon_faces:nearest")):
        (tmp_path / name).mkdir()
        values = load_config(config).to_dict()
        (tmp_path / name / "config.json").write_text(json.dumps(values))
    runs = [str(tmp_path / name) for name in ("good", "bad")]
    monkeypatch.setattr(sys, "argv", ["exchange", "--workdir", *runs])
    with pytest.raises(SystemExit):
        exchange.main()
    assert f"{tmp_path / 'bad'} has no sets of distinct codes" in capsys.readouterr().err
