"""Builds a tensorflow-datasets data set once, quietly and atomically."""

import contextlib
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from absl import logging

from pivq_jax.common.progress import progress_bar

T = TypeVar("T")


def default_data_dir() -> Path:
    """Returns the directory of prepared data: $PIVQ_DATA_DIR, or else ~/.cache/pivq_jax/data."""
    return Path(os.environ.get("PIVQ_DATA_DIR") or "~/.cache/pivq_jax/data").expanduser()


def usable_cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prepare(make_builder: Callable[[], Any]) -> Any:
    """Returns a builder whose data is on disk, building it if needed.

    tensorflow-datasets writes to a temporary directory and renames it when it is complete, so a
    directory with the final name is complete. A lock lets one process build while others wait for
    the result; the operating system releases the lock of a process that dies.

    Args:
        make_builder: returns the `tfds.core.GeneratorBasedBuilder`. It is called again once the
            lock is held, as a builder looks for its data when it is created.

    Returns:
        The builder.
    """
    with quiet():
        builder = make_builder()
        target = Path(builder.data_dir)
        if target.exists():
            return builder
        with locked(target.parent / f".{target.name}.lock", builder.info.full_name):
            builder = make_builder()
            if not target.exists():
                # No other process builds while the lock is held: these are left by killed builds.
                for remains in target.parent.glob(f"*incomplete*{target.name}*"):
                    shutil.rmtree(remains, ignore_errors=True)
                builder.download_and_prepare(download_dir=target.parent / ".downloads")
        return builder


def progress(items: Iterable[T], label: str, total: int, unit: str = " images") -> Iterable[T]:
    """Wraps items in a progress bar on stderr; if stderr is a file, prints every ten seconds.

    Args:
        items: the items.
        label: text before the bar.
        total: number of items.
        unit: text after the counts.

    Returns:
        An iterable over the same items.
    """
    bar: Iterable[T] = progress_bar(items, desc=label, total=total, unit=unit)
    return bar


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Holds an exclusive lock on a file; waits for it if another process holds it.

    Args:
        path: the lock file; created if needed.
        what: description of the protected data in the message printed while waiting.
    """
    try:
        import fcntl
    except ImportError:  # not supported on this system; renaming is still atomic
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
    """Suppresses the output of tensorflow-datasets; warnings of other packages remain visible.

    Its messages, such as "Downloading ... Unknown size", do not apply to data that is generated
    here.
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
