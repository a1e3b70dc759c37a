"""One process at a time writes to a directory, and one that has died is in nobody's way."""

import errno
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pivq_jax.common import lock as module
from pivq_jax.common.errors import InputError
from pivq_jax.common.lock import COUNTS_FOR, PREFIX, DirectoryLock

HOLD = """
import sys, time
from pathlib import Path
from pivq_jax.common.lock import DirectoryLock
with DirectoryLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""

OTHER = {"host": "elsewhere", "machine": "other"}


@pytest.fixture(autouse=True)
def no_waits(monkeypatch) -> None:
    """The clock goes on by a second each time that a lock looks at it."""
    seconds = itertools.count()
    monkeypatch.setattr(module.random, "uniform", lambda low, high: 0.0)
    monkeypatch.setattr(module, "_clock", lambda: float(next(seconds)))


def without_flock(monkeypatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, "not on this file system")

    monkeypatch.setattr(fcntl, "flock", refuse)


def claims(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.name.startswith(PREFIX)]


def rewrite(directory: Path, age: float = 0.0, **fields) -> Path:
    """The claim there, or a new one, as another process would have written it."""
    directory.mkdir(exist_ok=True)
    (path,) = claims(directory) or [directory / f"{PREFIX}other"]
    record = json.loads(path.read_text()) if path.exists() else {"pid": 7, "since": time.time()}
    path.write_text(json.dumps(record | {"renewed": time.time() - age} | fields))
    os.utime(path, times=(time.time() - age,) * 2)
    return path


@pytest.mark.parametrize("flock", [True, False])
def test_a_second_one_is_refused_with_who_holds_it(tmp_path, monkeypatch, flock):
    if not flock:
        without_flock(monkeypatch)
    with DirectoryLock(tmp_path) as held:
        rewrite(tmp_path, since=time.time() - 3723)
        after(4, monkeypatch, held._renew)
        with pytest.raises(InputError) as refusal, DirectoryLock(tmp_path):
            pass
        message = str(refusal.value)
        assert f"process {os.getpid()} on {os.uname().nodename} for 1:02:" in message
        assert str(tmp_path) in message and "--workdir" in message and "\n" not in message
        held.check()
        assert len(claims(tmp_path)) == 1
    assert not claims(tmp_path)
    with DirectoryLock(tmp_path):
        pass


def test_nothing_is_left_of_a_run_that_wrote_nothing(tmp_path):
    with DirectoryLock(tmp_path / "runs" / "new"):
        pass
    assert not (tmp_path / "runs").exists()
    with pytest.raises(RuntimeError), DirectoryLock(tmp_path / "runs" / "new"):
        (tmp_path / "runs" / "new" / "config.json").touch()
        raise RuntimeError
    assert [path.name for path in (tmp_path / "runs" / "new").iterdir()] == ["config.json"]


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path, monkeypatch):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=rf"by process {process.pid} on "):
        DirectoryLock(tmp_path).__enter__()
    process.kill()
    process.wait()
    assert len(claims(tmp_path)) == 1
    monkeypatch.setattr(module.random, "uniform", None)  # there is no second attempt
    with DirectoryLock(tmp_path):
        assert len(claims(tmp_path)) == 1


def after(waits: int, monkeypatch, work: Callable[[], object]) -> list[float]:
    """Lets something happen while this process waits; the seconds that it waited."""
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == waits:
            work()

    monkeypatch.setattr(module.time, "sleep", sleep)
    return waited


def renew_after(waits: int, monkeypatch, directory: Path, **fields) -> list[float]:
    """Lets another process renew its claim while this one waits."""
    return after(waits, monkeypatch, partial(rewrite, directory, **fields))


@pytest.mark.parametrize("age", [0, 10**6, -3600])  # by whatever clock
def test_that_of_another_machine_counts_until_it_is_seen_unchanged_for_a_minute(
    tmp_path, monkeypatch, capfd, age
):
    path = rewrite(tmp_path, age=age, **OTHER)
    with monkeypatch.context() as patch:
        waited = after(-1, patch, lambda: None)
        with DirectoryLock(tmp_path):
            assert not path.exists()
    assert COUNTS_FOR / 4 < len(waited) < COUNTS_FOR
    assert "waiting whether process 7 on elsewhere" in capfd.readouterr().err

    path = rewrite(tmp_path, age=age, **OTHER)
    waited = renew_after(9, monkeypatch, tmp_path, age=age + 3600)  # its clock has stepped back
    with pytest.raises(InputError, match="by process 7 on elsewhere"), DirectoryLock(tmp_path):
        pass
    assert len(waited) == 9 and path.exists()


def test_two_that_have_died_are_no_process_that_lives(tmp_path):
    shutil.copy(rewrite(tmp_path, **OTHER), tmp_path / f"{PREFIX}second")
    with DirectoryLock(tmp_path):
        assert len(claims(tmp_path)) == 1


@pytest.mark.parametrize("value", ["abc", None, [], float("nan"), float("inf"), 10**400])
def test_damaged_numbers_are_none(tmp_path, monkeypatch, value):
    rewrite(tmp_path, age=30, pid=value, since=value, renewed=value, machine="other")
    renew_after(4, monkeypatch, tmp_path)
    with pytest.raises(InputError, match=r"being trained in by process .* for 0:00:00"):
        DirectoryLock(tmp_path).__enter__()


def test_that_of_another_container_on_this_machine_counts_if_flock_does_not_tell(
    tmp_path, monkeypatch
):
    device = tmp_path.stat().st_dev
    rewrite(tmp_path, machine=module.machine(), flocked=device + 1)
    renew_after(4, monkeypatch, tmp_path, age=-1)
    with pytest.raises(InputError), DirectoryLock(tmp_path):
        pass
    rewrite(tmp_path, flocked=device)
    with DirectoryLock(tmp_path):
        pass


def test_one_suspended_for_long_loses_the_lock_to_another(tmp_path, monkeypatch):
    without_flock(monkeypatch)
    with DirectoryLock(tmp_path) as held:
        os.utime(rewrite(tmp_path), times=(0, 0))
        held._renewed -= COUNTS_FOR
        held._renew()  # nobody has taken it
        held.check()
        assert time.time() - claims(tmp_path)[0].stat().st_mtime < 10
        claims(tmp_path)[0].unlink()
        rewrite(tmp_path, pid=1, host="elsewhere", machine="other")
        held._renew()
        with pytest.raises(OSError, match=r"taken over by process 1 on elsewhere.*not renew"):
            held.check()
    assert [path.name for path in claims(tmp_path)] == [f"{PREFIX}other"]


def test_a_claim_is_renewed_until_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RENEWED_EVERY", 0.02)
    with DirectoryLock(tmp_path):
        path = rewrite(tmp_path, age=30)
        deadline = time.monotonic() + 60
        while time.time() - path.stat().st_mtime > 20:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    time.sleep(0.1)
    assert not claims(tmp_path)


def test_a_bucket_is_locked_without_flock(bucket, monkeypatch):
    with DirectoryLock(bucket) as held:
        assert len(claims(bucket)) == 1
        after(4, monkeypatch, held._renew)
        with pytest.raises(InputError, match=rf"gs://bucket/run .*process {os.getpid()}"):
            DirectoryLock(bucket).__enter__()
        held._renew()
        held.check()
    assert not bucket.exists()  # its only object was the claim
