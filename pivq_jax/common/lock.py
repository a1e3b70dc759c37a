"""A lock on a directory, so that a second process does not write to it.

Where the file system has `flock`, the directory is locked with it. Buckets have none, and on NFS or
FUSE other machines may not see it. So a process that holds or wants the lock also has a file in the
directory, its claim, renewed every 20 seconds. It holds the lock if, once its claim is written, no
other claim counts. A claim that this process has seen unchanged for 60 seconds does not count, nor
does that of a process which had the `flock` that this one now has. Times of different clocks are
never compared, as a clock may step back. The storage need only list files that were written before.
"""

import contextlib
import datetime
import itertools
import json
import math
import os
import platform
import random
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pivq_jax.common.errors import InputError, printable
from pivq_jax.common.files import flock, is_remote, read_object, write_atomically
from pivq_jax.common.parallel import check_in_first_process, machine

RENEWED_EVERY = 20.0  # seconds
COUNTS_FOR = 60.0  # seconds without renewal
ATTEMPTS = 3  # two processes that start at the same time may at first refuse each other
PREFIX = ".lock-"  # of the names of claims


class DirectoryLock:
    """Holds the lock on a directory, local or remote, while the context is open.

    A missing directory is created, and deleted at the end if nothing else was written. Where only
    the age of a claim tells whether its process still has the lock, entry waits for its renewal.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._claim = directory / f"{PREFIX}{uuid.uuid4().hex[:12]}"
        self._since = time.time()
        self._renewed = 0.0  # when the claim was, by `_clock`
        self._seen: dict[Path, tuple[str, float]] = {}  # other claims at first, and when
        self._flock: int | None = None  # descriptor of the locked directory
        self._device: int | None = None  # that of the directory, once it is locked with `flock`
        self._created: list[Path] = []
        self._ended = threading.Event()
        self._renewal = threading.Thread(target=self._renew_until_ended, daemon=True)
        self._taken_by = ""

    def check(self) -> None:
        """Raises OSError if another process took the lock, as this one slept for over a minute."""
        if self._taken_by:
            raise OSError(
                f"{self._directory} was taken over by {self._taken_by}, as this process did not"
                f" renew its lock for {COUNTS_FOR:.0f} s; nothing more is written there"
            )

    def __enter__(self) -> "DirectoryLock":
        if not is_remote(self._directory):
            folders = (self._directory, *self._directory.parents)
            self._created = [folder for folder in folders if not folder.exists()]
            self._directory.mkdir(parents=True, exist_ok=True)
        try:
            self._acquire()
        except BaseException:
            self._release()
            raise
        self._renewal.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._renewal.join(10)  # seconds, in case the storage hangs
        self._release()

    def _acquire(self) -> None:
        for attempt in itertools.count(1):
            holder = self._contend()
            if holder is None:
                return
            if attempt >= ATTEMPTS and holder.lives:
                raise InputError(
                    f"{self._directory} is being trained in by {holder.process}: wait for its end,"
                    " or choose another --workdir"
                )
            if attempt == ATTEMPTS:
                message = f"waiting whether {holder.process} still trains in {self._directory}"
                print(message, file=sys.stderr, flush=True)
            time.sleep(random.uniform(0.2, 1.5))

    def _contend(self) -> "_Claim | None":
        """Takes the lock, or returns the claim of the process that has it, without one then."""
        if self._flock is None and not is_remote(self._directory):
            try:
                self._flock = flock(self._directory)
                self._device = None if self._flock is None else os.fstat(self._flock).st_dev
            except BlockingIOError:  # its process lives, whatever the age of its claim
                others = self._others()
                newest = max(others, key=lambda other: other.modified, default=None)
                process = newest.process if newest else "another process"
                return _Claim(self._claim, process, 0.0, counts=True, lives=True)
        self._write()
        others = self._others()
        if counting := [other for other in others if other.counts]:
            self._claim.unlink(missing_ok=True)
            return counting[0]
        for other in others:
            other.path.unlink(missing_ok=True)
        return None

    def _write(self) -> None:
        record = {
            "host": platform.node(),
            "pid": os.getpid(),
            "since": self._since,
            "renewed": uuid.uuid4().hex,
            "machine": machine(),
            "flocked": self._device,
        }
        write_atomically(self._claim, json.dumps(record).encode())
        self._renewed = _clock()

    def _others(self) -> "list[_Claim]":
        others = []
        for path in self._directory.iterdir():
            if not path.name.startswith(PREFIX) or path.name == self._claim.name:
                continue
            if record := read_object(path):  # otherwise it has just been released
                modified, now = _modified(path), _clock()
                token = f"{modified!r} {record.get('renewed')}"
                first, seen = self._seen.setdefault(path, (token, now))
                lives = token != first
                locked = record.get("machine"), record.get("flocked")
                outlived = self._device is not None and locked == (machine(), self._device)
                counts = not outlived and (lives or now - seen < COUNTS_FOR)
                others.append(_Claim(path, _description(record), modified, counts, lives))
        return others

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(RENEWED_EVERY) and not self._taken_by:
            # What fails now may succeed the next time; by then the claim may not count any more.
            with contextlib.suppress(Exception):
                self._renew()

    def _renew(self) -> None:
        kept = _clock() - self._renewed < COUNTS_FOR and bool(read_object(self._claim))
        if kept and is_remote(self._claim):
            self._write()
        elif kept:  # also on a full disk
            os.utime(self._claim)
            self._renewed = _clock()
        elif other := self._contend():
            self._taken_by = other.process

    def _release(self) -> None:
        with contextlib.suppress(OSError):
            self._claim.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: a run has begun
            for folder in self._created:
                folder.rmdir()
        if self._flock is not None:
            os.close(self._flock)
            self._flock = None


@contextlib.contextmanager
def lock_directory(directory: Path) -> Iterator[DirectoryLock]:
    """Locks a directory in process 0 for all of them; if it is in use, all raise InputError."""
    lock = DirectoryLock(directory)
    with contextlib.ExitStack() as stack:
        check_in_first_process(lambda: stack.enter_context(lock))
        yield lock


class _Claim(NamedTuple):
    """The claim of another process."""

    path: Path
    process: str  # for messages
    modified: float  # by the storage's clock
    counts: bool  # otherwise the process has ended, or does not renew it
    lives: bool  # it was renewed since this process first saw it


def _description(record: dict[str, Any]) -> str:
    now = time.time()
    duration = datetime.timedelta(seconds=max(0, round(now - _number(record.get("since"), now))))
    return printable(f"process {record.get('pid')} on {record.get('host')} for {duration}")


def _number(value: Any, otherwise: float) -> float:
    """A time in a claim, which may be damaged."""
    return value if isinstance(value, float) and math.isfinite(value) else otherwise


def _clock() -> float:
    """Seconds that never step back, and go on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _modified(path: Path) -> float:
    """Time of the last write in seconds, by the storage's clock; 0 if the storage has none."""
    try:
        stat: Any = path.stat()
    except FileNotFoundError:
        return 0.0
    return float(stat.mtime if hasattr(stat, "mtime") else stat.st_mtime)
