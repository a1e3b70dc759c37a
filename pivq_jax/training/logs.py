"""Training logs: console, TensorBoard and JSON lines."""

import contextlib
import json
import math
import statistics
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import jax
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import directory_check

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import errors_named, is_remote, write_atomically

T = TypeVar("T")

LOG = "log.jsonl"
FLUSHED_EVERY = 120.0  # seconds between writes of TensorBoard's events, which may be an upload


def format_duration(seconds: float) -> str:
    """Formats seconds as h:mm:ss, or m:ss below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def check_log(workdir: Path) -> None:
    """Checks that nothing is in the way of the log."""
    if (path := workdir / LOG).is_dir():
        raise InputError(
            f"{path} is a directory, and the log is a file of that name: move it away, or choose"
            " another --workdir"
        )


def _step_of(line: str) -> float:
    """The step of a line of the log; infinity if the line is damaged."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return math.inf


class TrainingLog:
    """Console lines with ETA, `log.jsonl` and TensorBoard events, continued when a run resumes.

    A context manager that flushes all buffers on exit. Entries after `first_step` are removed.
    """

    def __init__(self, workdir: Path, first_step: int, total_steps: int) -> None:
        self._path = workdir / LOG
        self._total_steps = total_steps
        self._step, self._time = first_step, time.perf_counter()
        self._paused, self._paused_steps = 0.0, 0  # since the last line
        # What else slows down single windows is ignored by the median.
        self._speeds: deque[float] = deque(maxlen=9)
        self._waited = 0.0
        # Lines after the restored checkpoint will be written again.
        kept = [line for line in self._lines() if _step_of(line) <= first_step]
        self._text = "".join(line + "\n" for line in kept)
        write_atomically(self._path, self._text.encode())
        self._events = _Events(workdir / "tensorboard", purge_step=first_step + 1)

    def _lines(self) -> list[str]:
        """The whole lines of the log; a full disk may have truncated one."""
        if not self._path.exists():
            return []
        return self._path.read_bytes().decode(errors="replace").split("\n")[:-1]

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
        self._append(json.dumps(record) + "\n")
        values = {f"train/{name}": value for name, value in record.items() if name != "step"}
        self._events.write(step, values)
        eta = format_duration((self._total_steps - step) / statistics.median(self._speeds))
        print(
            f"step {step:>6}/{self._total_steps}  loss {metrics['loss']:.4f}  "
            f"PSNR {metrics['psnr']:5.2f} dB  {speed * batch_size:6.1f} images/s  ETA {eta}",
            flush=True,
        )

    def _append(self, line: str) -> None:
        if is_remote(self._path):  # objects in remote storage cannot grow
            self._text += line
            write_atomically(self._path, self._text.encode())
            return
        with errors_named(self._path), self._path.open("a") as file:
            file.write(line)

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

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes values by name; they are in the file at most two minutes later."""
        now = time.time()
        with errors_named(self.directory):
            for name, value in values.items():
                scalar = summary.scalar(name, value)
                self._writer.write_event(Event(wall_time=now, step=step, summary=scalar))
            if now - self._flushed > FLUSHED_EVERY:
                self._writer.flush()
                self._flushed = now

    def close(self) -> None:
        self._writer.close()
