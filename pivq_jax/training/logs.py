"""Training logs: console, TensorBoard and JSON lines."""

import contextlib
import statistics
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import directory_check

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import errors_named
from pivq_jax.training.json_lines import LOG, METRICS, JsonLines

T = TypeVar("T")

FLUSHED_EVERY = 120.0  # seconds between writes of TensorBoard's events, which may be an upload


def format_duration(seconds: float) -> str:
    """Formats seconds as h:mm:ss, or m:ss below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def check_log(workdir: Path) -> None:
    """Checks that nothing is in the way of the log."""
    for name in (LOG, METRICS):
        if (path := workdir / name).is_dir():
            raise InputError(
                f"{path} is a directory, and the log is a file of that name: move it away, or"
                " choose another --workdir"
            )


class TrainingLog:
    """Console lines with ETA, `log.jsonl`, `metrics.jsonl` and TensorBoard events.

    They are continued when a run resumes.
    A context manager that flushes all buffers on exit. Entries after `first_step` are removed.
    """

    def __init__(self, workdir: Path, first_step: int, total_steps: int) -> None:
        self._total_steps = total_steps
        self._step, self._time = first_step, time.perf_counter()
        self._paused, self._paused_steps = 0.0, 0  # since the last line
        # What else slows down single windows is ignored by the median.
        self._speeds: deque[float] = deque(maxlen=9)
        self._waited = 0.0
        self._lines = JsonLines(workdir / LOG, first_step)
        self._metrics = JsonLines(workdir / METRICS, first_step)
        self._events = _Events(workdir / "tensorboard", purge_step=first_step + 1)

    def watch(self, batches: Iterator[T]) -> Iterator[T]:
        """Yields the same batches and measures the time spent waiting for them."""
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    @contextlib.contextmanager
    def paused(self, steps: int = 0) -> Iterator[None]:
        """Leaves the time of what is done within, and so many of the steps, out of the speed."""
        started = time.perf_counter()
        yield
        self._paused += time.perf_counter() - started
        self._paused_steps += steps

    def write(self, step: int, metrics: Mapping[str, float], batch_size: int) -> None:
        """Writes one line; its speed is the mean since the previous line, but for what is `paused`.

        In addition to the metrics, of which `loss` and `psnr` (dB) are required, it records
        `images_per_second`, `step_seconds`, `input_wait` (fraction of the time spent waiting for
        images) and, if the device reports it, `device_memory_peak` in bytes.
        """
        now = time.perf_counter()
        seconds, steps = now - self._time, step - self._step
        if steps > self._paused_steps:  # else there is no other step to go by
            seconds, steps = seconds - self._paused, steps - self._paused_steps
        seconds = max(seconds, 1e-9)
        speed = steps / seconds
        record = {
            "step": step,
            **metrics,
            "images_per_second": speed * batch_size,
            "step_seconds": 1 / speed,
            "input_wait": self._waited / seconds,
        }
        memory = jax.local_devices()[0].memory_stats() or {}
        if "peak_bytes_in_use" in memory:
            record["device_memory_peak"] = memory["peak_bytes_in_use"]
        self._step, self._time, self._waited = step, now, 0.0
        self._paused, self._paused_steps = 0.0, 0
        self._speeds.append(speed)
        self._lines.append(record)
        values = {f"train/{name}": value for name, value in record.items() if name != "step"}
        self._events.write(step, values)
        eta = format_duration((self._total_steps - step) / statistics.median(self._speeds))
        print(
            f"step {step:>6}/{self._total_steps}  loss {metrics['loss']:.4f}  "
            f"PSNR {metrics['psnr']:5.2f} dB  {speed * batch_size:6.1f} images/s  ETA {eta}",
            flush=True,
        )

    def write_evaluation(
        self,
        step: int,
        figures: Mapping[str, float],
        pictures: Mapping[str, np.ndarray],
        seconds: float,
        share: float,
    ) -> None:
        """Writes the figures and pictures, uint8 [H, W, 3], of an evaluation during training.

        It took so many seconds, and all so far took this share of the time of the run.
        """
        record = {"step": step, **figures, "seconds": seconds, "share": share}
        self._metrics.append(record)
        values = {f"evaluation/{name}": x for name, x in record.items() if name != "step"}
        self._events.write(step, values, {f"evaluation/{x}": y for x, y in pictures.items()})
        listed = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print(
            f"step {step:>6}/{self._total_steps}  evaluated: {listed}  in {seconds:.1f} s,"
            f" all so far {share:.1%} of the time",
            flush=True,
        )

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        with errors_named(self._events.directory) if kind is None else contextlib.suppress(OSError):
            self._events.close()


class _Events:
    """A TensorBoard event file; earlier events from `purge_step` on are out of date.

    The writer's own thread, which `tensorboardX.SummaryWriter` has, dies on a full disk, and then
    training waits for it for ever.
    """

    def __init__(self, directory: Path, purge_step: int) -> None:
        self.directory = directory
        self._flushed = 0.0
        with errors_named(directory):
            directory_check(str(directory))
            self._writer = EventsWriter(str(directory / "events"))
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(step=purge_step, file_version="brain.Event:2"))
            self._writer.write_event(Event(step=purge_step, session_log=start))

    def write(
        self,
        step: int,
        values: Mapping[str, float],
        pictures: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Writes values and pictures by name; they are in the file at most two minutes later."""
        now = time.time()
        with errors_named(self.directory):
            written = [summary.scalar(name, value) for name, value in values.items()]
            for name, picture in (pictures or {}).items():
                written.append(summary.image(name, picture, dataformats="HWC"))
            for each in written:
                self._writer.write_event(Event(wall_time=now, step=step, summary=each))
            if now - self._flushed > FLUSHED_EVERY:
                self._writer.flush()
                self._flushed = now

    def close(self) -> None:
        self._writer.close()
