"""Builds a tensorflow-datasets data set once, quietly, and never by halves."""

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from absl import logging
from tqdm import tqdm

T = TypeVar("T")


def default_data_dir() -> Path:
    """The directory of prepared data: $PIVQ_DATA_DIR, else ~/.cache/pivq_jax/data."""
    return Path(os.environ.get("PIVQ_DATA_DIR") or "~/.cache/pivq_jax/data").expanduser()


def usable_cores() -> int:
    """How many of the machine's cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prepare(make_builder: Callable[[], Any]) -> Any:
    """Returns a builder whose data is on disk, building it if needed.

    tensorflow-datasets writes to a temporary directory and renames it when complete, so what has
    the final name is whole. A lock lets one process build while others wait for its result; the
    system drops the lock of a process that dies.

    Args:
      make_builder: makes the `tfds.core.GeneratorBasedBuilder`. It is called again once the lock
        is held, as a builder looks for its data when it is made.
    """
    with quiet():
        builder = make_builder()
        target = Path(builder.data_dir)
        if target.exists():
            return builder
        with locked(target.parent / f".{target.name}.lock", builder.info.full_name):
            builder = make_builder()
            if not target.exists():
                # Nobody else builds while the lock is held: these are remains of a killed build.
                for remains in target.parent.glob(f"*incomplete*{target.name}*"):
                    shutil.rmtree(remains, ignore_errors=True)
                builder.download_and_prepare(download_dir=target.parent / ".downloads")
        return builder


def progress(items: Iterable[T], label: str, total: int, unit: str = " images") -> Iterable[T]:
    """The items behind a progress bar with ETA on stderr; in a file, a line every ten seconds."""
    interval = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(items, label, total=total, unit=unit, mininterval=interval)


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Holds an exclusive lock on a file, waiting for it as long as needed."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system: the rename still keeps the data whole
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.warning("another process is preparing %s: waiting for it", what)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what tensorflow-datasets logs, prints and counts; warnings of others come through.

    What it would say, such as "Downloading ... Unknown size", is not true of data made here.
    """
    from tensorflow_datasets.core.utils import tqdm_utils

    def is_ours(record: Any) -> bool:
        return "tensorflow_datasets" not in record.pathname

    logger = logging.get_absl_logger()
    bars_were_on = tqdm_utils._active
    logger.addFilter(is_ours)
    tqdm_utils.display_progress_bar(False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.removeFilter(is_ours)
        tqdm_utils.display_progress_bar(bars_were_on)
