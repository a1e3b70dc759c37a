"""The log of a run: console, JSON lines, TensorBoard, trackio if asked for, and a profile."""

import contextlib
import importlib.util
import socket
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import RecordWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from pivq_jax.common.cost import format_duration
from pivq_jax.common.errors import InputError, brief
from pivq_jax.common.files import (
    ignore_bucket_errors,
    is_remote,
    name_file_in_errors,
    write_atomically,
)
from pivq_jax.common.json_lines import LOG, METRICS, JsonLines
from pivq_jax.common.parallel import print_once
from pivq_jax.common.pictures import encode_png
from pivq_jax.training.cost import Clock

FLUSHED_EVERY = 120.0  # seconds between writes of TensorBoard's events, which may be an upload
Value = float | np.ndarray  # a number, or a picture uint8 [H, W, 3]


def check_log(workdir: Path, tracker: str = "") -> None:
    """Checks that nothing is in the way of the log, and that a tracker's package is installed."""
    if tracker and importlib.util.find_spec(tracker) is None:
        raise InputError(
            f"--tracker={tracker} needs a package that is not installed: pip install"
            f" '.[{tracker}]' in a checkout of pivq_jax, or leave --tracker out"
        )
    for path in (workdir / LOG, workdir / METRICS):
        if path.is_dir():
            raise InputError(
                f"{path} is a directory, and the log is a file of that name: move it away, or"
                " choose another --workdir"
            )


class TrainingLog:
    """Console lines with ETA, `log.jsonl`, `metrics.jsonl` and trackers, closed on exit.

    When a run resumes, files are continued without entries after `first_step`. Those of `log.jsonl`
    go with the first new line: until then they say how long the steps took that are repeated. In a
    bucket a thread writes the files: each write uploads a whole one, for which devices would wait.
    """

    def __init__(
        self, workdir: Path, first_step: int, total_steps: int, clock: Clock, tracker: str = ""
    ) -> None:
        self._first_step, self._total_steps, self._clock = first_step, total_steps, clock
        # What else slows down single windows is ignored by the median.
        self._speeds: deque[float] = deque(maxlen=9)
        self._marks: tuple[float, ...] = ()  # what `_now` gave at the last line
        self._thread = ThreadPoolExecutor(1) if is_remote(workdir) else None
        self._lines = JsonLines(workdir / LOG, first_step)
        self._metrics = JsonLines(workdir / METRICS, first_step)
        self._metrics.cut()
        self._trackers: list[TensorBoard | Trackio] = [TensorBoard(workdir, first_step)]
        if tracker:
            self._trackers.append(Trackio(workdir, first_step))

    def write(self, step: int, metrics: Mapping[str, float], batch_size: int) -> None:
        """Writes one line; its speed is the mean of the steps that were timed since the last line.

        If there are none, it is that of the step that was compiled. The metrics need `loss` and
        `psnr` (dB).
        """
        before, self._marks = self._marks, self._now(step)
        steps, seconds, timed_steps, timed_seconds, waited = (
            now - then for now, then in zip(self._marks, before, strict=True)
        )
        if timed_steps:
            steps, seconds = timed_steps, timed_seconds
        seconds = max(seconds, 1e-9)
        speed = steps / seconds
        record = {
            "step": step,
            **metrics,
            "images_per_second": speed * batch_size,
            "step_seconds": 1 / speed,
            "input_wait": waited / seconds,
            **self._clock.figures(),
        }
        if at_peak := self._clock.step_at_peak():
            record["peak_share"] = at_peak * speed
        memory = jax.local_devices()[0].memory_stats() or {}
        if "peak_bytes_in_use" in memory:
            record["device_memory_peak"] = memory["peak_bytes_in_use"]
        self._speeds.append(speed)
        self._call(self._lines.append, record)
        self._track(step, "train", record)
        eta = format_duration((self._total_steps - step) / statistics.median(self._speeds))
        print_once(
            f"step {step:>6}/{self._total_steps}  loss {metrics['loss']:.4f}  "
            f"PSNR {metrics['psnr']:5.2f} dB  {speed * batch_size:6.1f} images/s  ETA {eta}"
        )

    def write_evaluation(
        self, step: int, figures: Mapping[str, float], pictures: Mapping[str, np.ndarray]
    ) -> None:
        """Writes figures and pictures, uint8 [H, W, 3], of the clock's last evaluation."""
        seconds, share = self._clock.last, self._clock.spent["evaluations"] / self._clock.seconds()
        record = {"step": step, **figures, "seconds": seconds, "share": share}
        self._call(self._metrics.append, record)
        self._track(step, "evaluation", {**record, **pictures})
        self.flush()
        listed = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print_once(
            f"step {step:>6}/{self._total_steps}  evaluated: {listed}  in {seconds:.1f} s,"
            f" all so far {share:.1%} of the time"
        )

    def _track(self, step: int, group: str, record: Mapping[str, Value]) -> None:
        values = {f"{group}/{name}": value for name, value in record.items() if name != "step"}
        for tracker in self._trackers:
            self._call(tracker.record, step, values)

    def flush(self) -> None:
        """Writes the lines that wait for the next upload to a bucket."""
        self._call(self._lines.flush)
        self._call(self._metrics.flush)

    def _call(self, write: Callable[..., object], *arguments: Any) -> None:
        """Writes here, or in the thread for a bucket, whose errors end no run."""
        if self._thread:
            self._thread.submit(write, *arguments)
        else:
            write(*arguments)

    def _now(self, step: int) -> tuple[float, ...]:
        """Steps and seconds of the run so far, those that were timed, and seconds of waiting."""
        clock = self._clock
        return step, clock.seconds(), clock.steps, clock.busy(), clock.spent["input"]

    def __enter__(self) -> "TrainingLog":
        self._marks = self._now(self._first_step)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        ignored = contextlib.suppress(OSError) if kind else contextlib.nullcontext()
        with ignored, contextlib.ExitStack() as stack:  # one that fails keeps no other one open
            for tracker in self._trackers:
                stack.callback(tracker.close)
            if self._thread:
                stack.callback(self._thread.shutdown)
            stack.callback(self.flush)  # the first of these


class TensorBoard:
    """An event file; earlier events after `first_step` are out of date.

    The writer's own thread, which `tensorboardX.SummaryWriter` has, dies on a full disk, and then
    training waits for it for ever.
    """

    def __init__(self, workdir: Path, first_step: int) -> None:
        self._directory, self._first_step = workdir / "tensorboard", first_step
        self._flushed, self._complained = 0.0, False
        self._writer: RecordWriter | None = None
        with self._errors():
            self._writer = self._open()

    def _open(self) -> RecordWriter:
        if not is_remote(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
        now = time.time()
        name = f"events.out.tfevents.{int(now)}.{socket.gethostname()}"
        writer = RecordWriter(str(self._directory / name))
        start = SessionLog(status=SessionLog.START)
        for what in ({"file_version": "brain.Event:2"}, {"session_log": start}):
            event = Event(wall_time=now, step=self._first_step + 1, **what)
            writer.write(event.SerializeToString())
        return writer

    def record(self, step: int, values: Mapping[str, Value]) -> None:
        """Writes events, which are in the file at most two minutes later."""
        now = time.time()
        with self._errors():
            self._writer = self._writer or self._open()
            for name, value in values.items():
                event = Event(wall_time=now, step=step, summary=_summary(name, value))
                self._writer.write(event.SerializeToString())
            if now - self._flushed > FLUSHED_EVERY:
                self._writer.flush()
                self._flushed = now

    def close(self) -> None:
        with self._errors():
            if self._writer:
                self._writer.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Errors end a run, but not those of a bucket, where each flush writes the whole file."""
        try:
            with name_file_in_errors(self._directory):
                yield
        except Exception as error:
            if not is_remote(self._directory):
                raise
            if not self._complained:
                message = f"{self._directory} is not written, and the run goes on: {brief(error)}"
                print(message, file=sys.stderr, flush=True)
            self._complained = True


def _summary(name: str, value: Value) -> Summary:
    if not isinstance(value, np.ndarray):
        return Summary(value=[Summary.Value(tag=name, simple_value=value)])
    height, width, channels = value.shape
    image = Summary.Image(
        height=height, width=width, colorspace=channels, encoded_image_string=encode_png(value)
    )
    return Summary(value=[Summary.Value(tag=name, image=image)])


class Trackio:
    """A run of trackio, whose own variables say where it is kept (`TRACKIO_DIR`) or sent.

    A run that resumes is continued; steps that it repeats are there twice.
    """

    def __init__(self, workdir: Path, first_step: int) -> None:
        import trackio  # takes seconds

        self._image = trackio.Image
        self._run = trackio.init(
            "pivq_jax",
            name=workdir.name,
            resume="allow" if first_step else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def record(self, step: int, values: Mapping[str, Value]) -> None:
        pictures = {name: self._image(x) for name, x in values.items() if isinstance(x, np.ndarray)}
        self._run.log({**values, **pictures}, step=step)

    def close(self) -> None:
        self._run.finish()


class ProfilerTrace:
    """A profiler trace of a range of steps in `<workdir>/profile`, for TensorBoard or Perfetto."""

    def __init__(self, workdir: Path, first_step: int, steps: int) -> None:
        self._directory = workdir / "profile"
        self._first, self._last = first_step, first_step + steps
        self._running: tempfile.TemporaryDirectory[str] | None = None  # local, with the files

    def at(self, step: int, pending: Any) -> None:
        """Starts or stops the trace if due; waits for `pending`, the arrays of the last step."""
        if step == self._first < self._last:
            jax.block_until_ready(pending)  # exclude earlier steps
            self._running = tempfile.TemporaryDirectory()
            jax.profiler.start_trace(self._running.name)
        elif step == self._last:
            self.close(pending)

    def close(self, pending: Any = None) -> None:
        """Stops the trace if it runs, also that of a run that ends early."""
        if not self._running:
            return
        jax.block_until_ready(pending)
        jax.profiler.stop_trace()
        with self._running as local, ignore_bucket_errors(self._directory):
            for file in filter(Path.is_file, Path(local).rglob("*")):
                write_atomically(self._directory / file.relative_to(local), file.read_bytes())
            print_once(f"profile of steps {self._first} to {self._last} in {self._directory}")
        self._running = None
