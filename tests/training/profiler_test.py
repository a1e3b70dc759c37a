"""Profiler traces: of the chosen steps, of a run that stops early, in remote storage."""

import contextlib
import tempfile

import jax.numpy as jnp
import pytest

from pivq_jax.training.profiler import ProfilerTrace


@pytest.mark.slow
def test_a_profiler_trace_holds_the_chosen_steps(tmp_path, capsys):
    with contextlib.closing(ProfilerTrace(tmp_path, first_step=2, steps=3)) as trace:
        for step in range(8):
            trace.at(step, jnp.ones(4) * step)
            assert ("profile of steps 2 to 5" in capsys.readouterr().out) == (step == 5)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_no_trace_unless_asked_for(tmp_path):
    with contextlib.closing(ProfilerTrace(tmp_path, first_step=0, steps=0)) as trace:
        for step in range(3):
            trace.at(step, None)
    assert not (tmp_path / "profile").exists()


def test_a_run_that_stops_early_keeps_its_trace_in_remote_storage_too(
    bucket, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with contextlib.closing(ProfilerTrace(bucket, first_step=0, steps=5)) as trace:
        trace.at(0, None)
    assert (bucket / "profile" / "plugins").is_dir()
    assert not [path.name for path in bucket.iterdir() if path.name.endswith(".tmp")]
    assert not any(tmp_path.iterdir())


def test_a_trace_that_a_bucket_refuses_ends_no_run(bucket, tmp_path, monkeypatch, capsys):
    def refuse(path, content):
        raise RuntimeError("503 try again")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(type(bucket), "write_bytes", refuse)
    with contextlib.closing(ProfilerTrace(bucket, first_step=0, steps=1)) as trace:
        trace.at(0, None)
        trace.at(1, None)
    out, err = capsys.readouterr()
    assert not out
    assert err == ("gs://bucket/run/profile is not written, and the run goes on: 503 try again\n")
    assert not any(tmp_path.iterdir())
