"""A lock on a directory, so that a second process does not write to it.

A process that holds or wants the lock has a file of its own in the directory, its claim, written
anew every 20 seconds. It holds the lock if, once its claim is written, it finds no other that
counts. A claim no longer counts if it is 60 seconds old, or if its process was on this machine and
has ended. One dated in the future, as by a clock that has since been corrected, is as old as the
time for which a process that wants the lock has seen it unchanged. This needs no more of the
storage than that a listing shows what was written before, so it works in buckets too.

Where the file system has `flock`, the directory is locked with it as well: the operating system
releases it at once when the process ends, and tells containers of one machine apart. It does not
replace the claims, as on NFS or FUSE other machines may not see it.
"""

import contextlib
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
from pathlib import Path
from typing import Any, NamedTuple

from pivq_jax.common.errors import InputError, printable
from pivq_jax.common.files import flock, is_remote, read_object, write_atomically

RENEWED_EVERY = 20.0  # seconds
COUNTS_FOR = 60.0  # seconds without renewal
ATTEMPTS = 3  # two processes that start at the same time may at first refuse each other
PREFIX = ".lock-"  # of the names of claims


class DirectoryLock:
    """Holds the lock on a directory, local or remote, while the context is open.

    A missing directory is created, and deleted at the end if nothing else was written. If another
    process holds the lock, entry is refused within seconds or, if `patient`, after waiting up to a
    minute for the end of a lock that is not renewed. For one dated in the future it always waits.
    """

    def __init__(self, directory: Path, patient: bool = False) -> None:
        self._directory, self._patient = directory, patient
        self._claim = directory / f"{PREFIX}{uuid.uuid4().hex[:12]}"
        self._since = time.time()
        self._renewed = 0.0  # time of the last renewal, which goes on while a machine sleeps
        self._flock: int | None = None  # descriptor of the locked directory
        self._created: list[Path] = []
        self._seen = dict[tuple[Path, float], float]()  # claims dated ahead, and since when
        self._ended = threading.Event()
        self._renewal = threading.Thread(target=self._renew_until_ended, daemon=True)
        self._taken_by = ""

    def check(self) -> None:
        """Raises OSError if another process took the lock, as this one slept for a minute or
        longer.
        """
        if self._taken_by:
            raise OSError(
                f"{self._directory} was taken over by {self._taken_by}, as this process did not"
                f" renew its lock for {COUNTS_FOR:.0f} s; nothing more is written there"
            )

    def __enter__(self) -> "DirectoryLock":
        if not is_remote(self._directory):
            places = (self._directory, *self._directory.parents)
            self._created = [place for place in places if not place.exists()]
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
        last_age = 0.0
        for attempt in itertools.count(1):
            holder = self._contend()
            if holder is None:
                return
            waits = not holder.lives and (self._patient or holder.is_ahead)
            waits = waits and holder.age >= last_age  # otherwise it was renewed
            last_age = holder.age
            if attempt >= ATTEMPTS and not waits:
                left = f"{COUNTS_FOR - holder.age:.0f} s"
                wait = f" (if that process has ended, the lock does in {left})"
                raise InputError(
                    f"{self._directory} is being trained in by {holder.process}: wait for its end,"
                    f" or choose another --workdir{'' if holder.lives else wait}"
                )
            if attempt == ATTEMPTS:
                say = f"waiting whether {holder.process} still trains in {self._directory}"
                print(say, file=sys.stderr, flush=True)
            time.sleep(random.uniform(0.2, 1.5))

    def _contend(self) -> "_Other | None":
        """Takes the lock, or returns the process that has it, without a claim then."""
        try:
            self._take_flock()
        except BlockingIOError:  # whatever the ages of the claims
            others = sorted(self._others(), key=lambda other: other.age)
            unknown = _Other(self._claim, "another process", 0.0)
            return (*others, unknown)[0]._replace(lives=True)
        self._write()
        others = self._others()
        if counting := [other for other in others if not other.ended]:
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
            "renewed": time.time(),
            "machine": _machine(),
            "pids": _pid_namespace(),
            "started": _start_of(os.getpid()),
            "flocked": self._flocked,
        }
        write_atomically(self._claim, json.dumps(record).encode())
        self._renewed = time.time()

    @property
    def _flocked(self) -> int | None:
        """The device of the directory if this process has locked it with `flock`."""
        return None if self._flock is None else os.fstat(self._flock).st_dev

    def _others(self) -> "list[_Other]":
        """The claims of other processes."""
        now = _modified(self._claim) or time.time()  # by the storage's clock, if it has one
        others = []
        for path in self._directory.iterdir():
            if not path.name.startswith(PREFIX) or path.name == self._claim.name:
                continue
            record = read_object(path)
            with contextlib.suppress(FileNotFoundError):  # it has just been released
                renewed = _modified(path) or _number(record.get("renewed"))
                age = now - renewed if renewed else 0.0
                if is_ahead := age < -COUNTS_FOR:
                    instant = time.monotonic()
                    age = instant - self._seen.setdefault((path, renewed), instant)
                lives = _lives(record, self._flocked)
                ended = age >= COUNTS_FOR or lives is False
                others.append(_Other(path, _named(record), age, is_ahead, bool(lives), ended))
        return others

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(RENEWED_EVERY) and not self._taken_by:
            # What fails now may succeed the next time; by then the claim may not count any more.
            with contextlib.suppress(Exception):
                self._renew()

    def _renew(self) -> None:
        kept = time.time() - self._renewed < COUNTS_FOR and bool(read_object(self._claim))
        if kept and is_remote(self._claim):
            self._write()
        elif kept:  # also on a full disk
            os.utime(self._claim)
            self._renewed = time.time()
        elif other := self._contend():
            self._taken_by = other.process

    def _take_flock(self) -> None:
        """Locks the directory where possible; BlockingIOError if another process has locked it."""
        if self._flock is None and not is_remote(self._directory):
            self._flock = flock(self._directory)
            if self._flock is not None:
                _descriptors.add(self._flock)

    def _release(self) -> None:
        with contextlib.suppress(OSError):
            self._claim.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: a run has begun
            for place in self._created:
                place.rmdir()
        if self._flock is not None:
            _descriptors.discard(self._flock)
            os.close(self._flock)
            self._flock = None


class _Other(NamedTuple):
    """The claim of another process."""

    path: Path
    process: str  # for messages
    age: float  # seconds since its renewal
    is_ahead: bool = False  # dated in the future
    lives: bool = False  # known otherwise than by its age
    ended: bool = False  # known, or by its age: it no longer counts


def _named(record: dict[str, Any]) -> str:
    held = time.time() - (_number(record.get("since")) or time.time())
    minutes, seconds = divmod(max(0, round(held)), 60)
    host, pid = (record.get(name, "unknown") for name in ("host", "pid"))
    who = printable(f"process {pid} on {host}")
    return f"{who} for {minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _lives(record: dict[str, Any], flocked: int | None) -> bool | None:
    """Whether the process of a claim is alive; None if only the age of the claim tells.

    `flocked` is the device of the directory if this process has locked it with `flock`.
    """
    if record.get("machine") != _machine():
        return None
    if record.get("pids") == _pid_namespace() != "":  # /proc tells
        # A process id is used again: compare what has started.
        started = _start_of(int(_number(record.get("pid"))))
        return started is not None and started == record.get("started")
    # Another container on this machine: it would hold the lock of the same file system.
    return False if flocked is not None and record.get("flocked") == flocked else None


def _number(value: Any) -> float:
    """A number of a claim; 0 if it is none, as in a damaged one."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number if math.isfinite(number) else 0.0


def _machine() -> str:
    """Identifies this machine since it was started; hosts of containers may have one name."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return platform.node()


def _pid_namespace() -> str:
    """Identifies the set of process ids that this process sees; empty without /proc."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _start_of(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None if it has ended or is unknown."""
    try:
        # The name of the command, in parentheses, may contain anything.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else int(fields[18])


def _modified(path: Path) -> float:
    """Time of the last write in seconds, by the storage's clock; 0 if the storage has none."""
    try:
        stat: Any = path.stat()
    except FileNotFoundError:
        return 0.0
    return float(stat.mtime if hasattr(stat, "mtime") else stat.st_mtime)


_descriptors: set[int] = set()  # of locked directories


def _close_in_child() -> None:
    """Lets the lock end with the parent: a child that reads images may outlive it."""
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
