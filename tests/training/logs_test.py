"""The log of a run: speeds, input wait, remote storage, trackers, profiles."""

import contextlib
import io
import json
import sqlite3
import struct
import tempfile
import threading
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import write_json
from pivq_jax.common.pictures import save_png
from pivq_jax.training import cost, logs
from pivq_jax.training.cost import Clock
from pivq_jax.training.logs import ProfilerTrace, TrainingLog, check_log
from tests.conftest import full_disk, read_lines

METRICS = {"loss": 1.0, "psnr": 20.0}


@pytest.fixture
def now(monkeypatch):
    """The time, in its only entry."""
    time = [0.0]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: time[0])
    return time


def test_the_time_waited_for_images_is_a_share_of_the_whole(tmp_path, now):
    clock = Clock(peak=2.0, flops=1.0, started=now[0])
    with TrainingLog(tmp_path, 0, 4, clock) as log:
        for number in range(4):
            with clock.on("input"):
                now[0] += 1
            now[0] += 3
            clock.count_step()
            if number in (1, 3):
                log.write(number + 1, METRICS, batch_size=8)
    for line in read_lines(tmp_path / "log.jsonl"):
        assert (line["input_wait"], line["step_seconds"]) == (0.25, 4)
        assert (line["images_per_second"], line["peak_share"]) == (2, 0.125)
    assert (line["seconds_input"], line["goodput"]) == (4, 0.75)


def test_what_is_lost_is_left_out_of_the_speed_but_for_waiting(tmp_path, now):
    def spend(what: str, seconds: float) -> None:
        with clock.on(what):
            now[0] += seconds

    clock = Clock(started=now[0])
    with TrainingLog(tmp_path, 0, 100, clock) as log:
        spend("start", 60)  # compiles
        spend("input", 3)
        now[0], clock.steps = now[0] + 5, clock.steps + 4
        spend("pictures", 30)
        log.write(5, METRICS, batch_size=8)
        spend("start", 60)  # the only step: its speed is all there is to tell
        log.write(6, METRICS, batch_size=8)
        now[0], clock.steps = now[0] + 4, clock.steps + 2
        log.write(8, METRICS, batch_size=8)
    lines = read_lines(tmp_path / "log.jsonl")
    assert [line["step_seconds"] for line in lines] == [2, 60, 2]
    assert [line["input_wait"] for line in lines] == [3 / 8, 0, 0]


def test_device_memory_is_logged_where_the_device_tells(tmp_path, monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_in_use": 5, "peak_bytes_in_use": 7}

    with TrainingLog(tmp_path, 0, 2, Clock()) as log:
        log.write(1, METRICS, batch_size=8)
        monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
        log.write(2, METRICS, batch_size=8)
    first, second = read_lines(tmp_path / "log.jsonl")
    assert second["device_memory_peak"] == 7
    assert ("device_memory_peak" in first) == bool(jax.devices()[0].memory_stats())


def events(workdir) -> dict[str, list]:
    """What TensorBoard has by name: (step, value, or the shape of a picture)."""
    found: dict[str, list] = {}
    for path in sorted((workdir / "tensorboard").iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):  # length, checksum, event, checksum
            (size,) = struct.unpack("<Q", data[place : place + 8])
            event = Event.FromString(data[place + 12 : place + 12 + size])
            place += size + 16
            for value in event.summary.value:
                kept: object = value.simple_value
                if value.HasField("image"):
                    pixels = Image.open(io.BytesIO(value.image.encoded_image_string))
                    kept = np.asarray(pixels).tolist()
                found.setdefault(value.tag, []).append((event.step, kept))
    return found


def test_an_evaluation_is_a_line_a_record_and_events_with_pictures(tmp_path, capsys, now):
    picture = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    figures = {"psnr": 20.125, "codes_used": 498}
    clock = Clock(started=now[0])
    now[0] += 77.5
    with clock.on_evaluation():
        now[0] += 2.5
    with TrainingLog(tmp_path, 0, 900, clock) as log:
        log.write_evaluation(100, figures, {"samples": picture})
        log.write_evaluation(200, figures, {})
    first = "step    100/900  evaluated: psnr 20.12  codes_used 498  in 2.5 s, all so far 3.1% of"
    assert capsys.readouterr().out.splitlines()[0].startswith(first)
    expected = {"step": 100, **figures, "seconds": 2.5, "share": 0.03125}
    assert read_lines(tmp_path / "metrics.jsonl")[0] == expected
    written = events(tmp_path)
    assert written["evaluation/psnr"] == [(100, 20.125), (200, 20.125)]
    assert written["evaluation/samples"] == [(100, picture.tolist())]
    with TrainingLog(tmp_path, 150, 900, Clock()):
        pass
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [100]


def test_a_log_in_remote_storage_grows_and_is_continued(bucket, monkeypatch):
    written = []

    class Writer:  # TensorBoard's own access to remote storage is its affair
        def __init__(self, path):
            written.append([path.rpartition("/")[0]])

        def write(self, event):
            written[-1].append(Event.FromString(event).step)

        flush = close = lambda _: None

    monkeypatch.setattr(logs, "RecordWriter", Writer)
    with TrainingLog(bucket, 0, 4, Clock()) as log:
        for step in (1, 2, 3):
            log.write(step, METRICS, batch_size=8)
    assert [line["step"] for line in read_lines(bucket / "log.jsonl")] == [1, 2, 3]
    with TrainingLog(bucket, 2, 4, Clock()) as log:
        log.write(4, METRICS, batch_size=8)
    assert [line["step"] for line in read_lines(bucket / "log.jsonl")] == [1, 2, 4]
    files, *steps = zip(*written, strict=False)
    assert files == ("gs://bucket/run/tensorboard",) * 2
    assert steps[0] == (1, 3)  # earlier events from these steps on are out of date


def test_a_slow_bucket_keeps_no_step_waiting(bucket, monkeypatch):
    answers, write_bytes = threading.Event(), type(bucket).write_bytes

    def write_late(path, content):
        assert answers.wait(60)
        return write_bytes(path, content)

    board = SimpleNamespace(record=lambda *_: None, close=lambda: None)
    monkeypatch.setattr(logs, "TensorBoard", lambda *_: board)
    monkeypatch.setattr(type(bucket), "write_bytes", write_late)
    with TrainingLog(bucket, 0, 4, Clock()) as log:
        for step in (1, 2):
            log.write(step, METRICS, batch_size=8)
            log.flush()
        assert not (bucket / "log.jsonl").exists()
        answers.set()
    assert [line["step"] for line in read_lines(bucket / "log.jsonl")] == [1, 2]


def test_a_bucket_that_refuses_events_ends_no_run(bucket, monkeypatch, capsys):
    def refuse(*_):
        raise RuntimeError("503 try again")  # as google.api_core says, no OSError

    writer = SimpleNamespace(write=refuse, flush=refuse, close=refuse)
    monkeypatch.setattr(logs, "RecordWriter", lambda path: writer)
    with pytest.raises(KeyError, match="of the run"), TrainingLog(bucket, 0, 4, Clock()) as log:
        for step in (1, 2):
            log.write(step, METRICS, batch_size=8)
        raise KeyError("of the run")
    assert [line["step"] for line in read_lines(bucket / "log.jsonl")] == [1, 2]
    assert capsys.readouterr().err == (
        "gs://bucket/run/tensorboard is not written, and the run goes on: 503 try again\n"
    )


def test_a_tracker_that_cannot_be_closed_keeps_no_other_open(tmp_path):
    def fail():
        raise OSError("full")

    closed = []
    log = TrainingLog(tmp_path, 0, 4, Clock())
    log._trackers += [
        SimpleNamespace(close=close) for close in (fail, lambda: closed.append(1), fail)
    ]
    with pytest.raises(OSError, match="full"), log:
        pass
    assert closed


def test_a_full_disk_ends_the_run_with_the_name_of_the_file(tmp_path, monkeypatch):
    no_space = "No space left on device: "
    with (
        pytest.raises(OSError, match=rf"{no_space}.*/tensorboard'"),
        TrainingLog(tmp_path, 0, 99, Clock()) as log,
    ):
        monkeypatch.setattr("tensorboardX.RecordWriter.write", full_disk)
        for step in range(1, 50):  # more than would wait for a thread that has died
            log.write(step, METRICS, batch_size=8)
    with pytest.raises(OSError, match=rf"{no_space}.*/config\.json'"):
        monkeypatch.setattr("os.fsync", full_disk)
        write_json(tmp_path / "config.json", {})


def test_reports_and_pictures_go_to_remote_storage(bucket):
    write_json(bucket / "config.json", {"a": 1})
    write_json(bucket / "config.json", {"a": 2})
    assert json.loads((bucket / "config.json").read_text()) == {"a": 2}
    save_png(bucket / "pictures" / "step_1.png", np.zeros((4, 4, 3), np.uint8))
    assert (bucket / "pictures" / "step_1.png").read_bytes().startswith(b"\x89PNG")
    assert not [path.name for path in bucket.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.parametrize(
    "damage",
    [
        b"[1]\n",
        b"{}\n",
        b"null\n",
        b"\xff\xfe\n",
        b'{"step": "a"}\n',
        b'{"step": 4',
        b'{"step": %d}\n' % 10**400,
    ],
    ids=range(7),
)
def test_a_damaged_line_is_dropped(tmp_path, damage):
    whole = [b'{"step": 1}\n', b'{"step": 2}\n']
    (tmp_path / "log.jsonl").write_bytes(whole[0] + damage + whole[1] + b'{"step": 9}\n')
    before = (tmp_path / "log.jsonl").read_bytes()
    with TrainingLog(tmp_path, 5, 10, Clock()) as log:
        assert (tmp_path / "log.jsonl").read_bytes() == before  # a kill now would lose nothing
        log.write(6, METRICS, batch_size=8)
        log.write(7, METRICS, batch_size=8)
    kept = (tmp_path / "log.jsonl").read_bytes()
    # A line without an end takes the next one with it.
    start = whole[0] if not damage.endswith(b"\n") else b"".join(whole)
    assert kept.startswith(start)
    assert [json.loads(x)["step"] for x in kept[len(start) :].splitlines()] == [6, 7]


def test_a_directory_in_the_place_of_the_log_is_refused(tmp_path):
    check_log(tmp_path)
    for name in ("metrics.jsonl", "log.jsonl"):
        (tmp_path / name).mkdir()
        with pytest.raises(
            InputError, match=rf"{name} is a directory.* move it away, or choose an"
        ):
            check_log(tmp_path)


def test_a_tracker_that_is_missing_is_refused_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(logs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--tracker=trackio .*pip install '\.\[trackio\]'"):
        check_log(tmp_path, "trackio")


def test_trackio_has_what_the_log_has_and_goes_on_with_its_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # it is read at the first import
    pytest.importorskip("trackio")
    picture = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    workdir = tmp_path / "faces"
    with TrainingLog(workdir, 0, 30, Clock(), "trackio") as log:
        log.write(10, {"loss": 1.5, "psnr": 20.0}, batch_size=8)
        log.write_evaluation(10, {"psnr": 21.0}, {"samples": picture})
    with TrainingLog(workdir, 10, 30, Clock(), "trackio") as log:
        log.write(20, {"loss": 0.5, "psnr": 22.0}, batch_size=8)

    with sqlite3.connect(tmp_path / "trackio" / "pivq_jax.db") as file:
        rows = file.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    assert {name for name, _, _ in rows} == {"faces"}
    found = [(step, json.loads(metrics)) for _, step, metrics in rows]
    losses = [(step, values["train/loss"]) for step, values in found if "train/loss" in values]
    assert losses == [(10, 1.5), (20, 0.5)]
    assert [values["evaluation/psnr"] for _, values in found if "evaluation/psnr" in values] == [21]
    [path] = (tmp_path / "trackio" / "media").rglob("*.png")
    np.testing.assert_array_equal(np.asarray(Image.open(path).convert("RGB")), picture)
    lines = read_lines(workdir / "log.jsonl")
    named = [{f"train/{name}": value for name, value in line.items()} for line in lines]
    for line, (step, values) in zip(named, (found[0], found[-1]), strict=True):
        assert line == {"train/step": step, **values}


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
