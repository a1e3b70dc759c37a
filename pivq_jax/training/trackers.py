"""Where scalars and pictures of a run go besides `log.jsonl`: TensorBoard, and trackio if asked."""

import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import directory_check

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import errors_named

FLUSHED_EVERY = 120.0  # seconds between writes of TensorBoard's events, which may be an upload


class TensorBoard:
    """An event file; earlier events after `first_step` are out of date.

    The writer's own thread, which `tensorboardX.SummaryWriter` has, dies on a full disk, and then
    training waits for it for ever.
    """

    def __init__(self, workdir: Path, first_step: int) -> None:
        self._directory = workdir / "tensorboard"
        self._flushed = 0.0
        with errors_named(self._directory):
            directory_check(str(self._directory))
            self._writer = EventsWriter(str(self._directory / "events"))
            start = SessionLog(status=SessionLog.START)
            for what in ({"file_version": "brain.Event:2"}, {"session_log": start}):
                self._writer.write_event(Event(step=first_step + 1, **what))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._write(step, [summary.scalar(name, value) for name, value in values.items()])

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        self._write(step, [summary.image(x, y, dataformats="HWC") for x, y in pictures.items()])

    def _write(self, step: int, summaries: list[summary.Summary]) -> None:
        """Writes events, which are in the file at most two minutes later."""
        now = time.time()
        with errors_named(self._directory):
            for each in summaries:
                self._writer.write_event(Event(wall_time=now, step=step, summary=each))
            if now - self._flushed > FLUSHED_EVERY:
                self._writer.flush()
                self._flushed = now

    def close(self) -> None:
        with errors_named(self._directory):
            self._writer.close()


class Trackio:
    """A run of trackio, named like the workdir, in the project pivq_jax.

    Its own variables say where it is kept (`TRACKIO_DIR`) or sent. A run that resumes is continued;
    steps that it repeats are there twice.
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

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        self._run.log({name: self._image(picture) for name, picture in pictures.items()}, step=step)

    def close(self) -> None:
        self._run.finish()


def check_tracker(name: str) -> None:
    """Checks that the package of a tracker is installed; '' stands for TensorBoard alone."""
    if name and importlib.util.find_spec(name) is None:
        raise InputError(
            f"--tracker={name} needs a package that is not installed: pip install"
            f" 'pivq_jax[{name}]', or leave --tracker out"
        )


def open_trackers(name: str, workdir: Path, first_step: int) -> list[TensorBoard | Trackio]:
    """Opens TensorBoard and, if its name is given, trackio.

    Both record, after so many steps, `scalars` and `images`, uint8 [H, W, 3], by name.
    """
    trackers: list[TensorBoard | Trackio] = [TensorBoard(workdir, first_step)]
    return [*trackers, Trackio(workdir, first_step)] if name else trackers
