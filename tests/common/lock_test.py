"""One process at a time writes to a directory, and one that has died is in nobody's way."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pivq_jax.common import lock as module
from pivq_jax.common.errors import InputError
from pivq_jax.common.lock import COUNTS_FOR, PREFIX, DirectoryLock

HOLD = """
import os, sys, time
from pathlib import Path
from pivq_jax.common.lock import DirectoryLock
with DirectoryLock(Path(sys.argv[1])):
    forked = len(sys.argv) > 2  # a child that reads images, say
    if not forked or os.fork() == 0:
        print("held", os.getpid(), flush=True)  # the child: it has closed what it inherited
    time.sleep(100)
"""


@pytest.fixture(autouse=True)
def no_waits(monkeypatch) -> None:
    monkeypatch.setattr(module.random, "uniform", lambda low, high: 0.0)


def hold(directory: Path, *more: str) -> tuple[subprocess.Popen, int]:
    """Another process that holds the lock, and its child's id."""
    command = [sys.executable, "-c", HOLD, str(directory), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    held, child = process.stdout.readline().split()
    assert held == "held"
    return process, int(child)


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
        started = time.monotonic()
        with pytest.raises(InputError) as refusal, DirectoryLock(tmp_path):
            pass
        assert time.monotonic() - started < 9
        message = str(refusal.value)
        assert f"process {os.getpid()} on {os.uname().nodename} for 1:02:0" in message
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


@pytest.mark.parametrize("flock", [True, False])
def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path, monkeypatch, flock):
    process, child = hold(tmp_path, "with a child")
    try:
        with pytest.raises(InputError, match=rf"by process {process.pid} on "):
            DirectoryLock(tmp_path).__enter__()
        process.kill()
        process.wait()
        assert len(claims(tmp_path)) == 1
        monkeypatch.setattr(module.random, "uniform", None)  # there is no second attempt
        if not flock:
            without_flock(monkeypatch)
        with DirectoryLock(tmp_path):
            assert len(claims(tmp_path)) == 1
        os.kill(child, 0)  # it lives
    finally:
        process.kill()
        os.kill(child, signal.SIGKILL)


def test_a_process_id_that_is_used_again_does_not_hold_the_lock(tmp_path):
    here = {"machine": module._machine(), "pids": module._pid_namespace()}
    rewrite(tmp_path, pid=os.getpid(), started=module._start_of(os.getpid()) - 5, **here)
    with DirectoryLock(tmp_path):
        pass
    rewrite(tmp_path, pid=os.getpid(), started=module._start_of(os.getpid()), **here)
    with pytest.raises(InputError, match=f"process {os.getpid()}"), DirectoryLock(tmp_path):
        pass


def test_that_of_another_machine_counts_for_a_minute(tmp_path):
    # Its host and process ids may be the same as here.
    other = {"host": os.uname().nodename, "machine": "other", "pids": module._pid_namespace()}
    rewrite(tmp_path, age=COUNTS_FOR - 20, pid=1, **other)
    with pytest.raises(InputError, match=r"process 1 .* the lock does in (19|20) s"):
        DirectoryLock(tmp_path).__enter__()
    rewrite(tmp_path, age=COUNTS_FOR + 1)
    with DirectoryLock(tmp_path):
        assert f"{PREFIX}other" not in [path.name for path in claims(tmp_path)]


def test_one_of_several_hosts_waits_for_a_lock_that_is_not_renewed(tmp_path, monkeypatch, capfd):
    other = {"host": "elsewhere", "machine": "other"}
    path = rewrite(tmp_path, age=COUNTS_FOR - 0.5, **other)
    monkeypatch.setattr(module.random, "uniform", lambda low, high: 0.1)
    with DirectoryLock(tmp_path, patient=True):
        assert not path.exists()
    assert "waiting whether process 7 on elsewhere" in capfd.readouterr().err
    path, waits = rewrite(tmp_path, age=30, **other), []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 9:
            rewrite(tmp_path, age=0)

    monkeypatch.setattr(module.time, "sleep", sleep)
    with pytest.raises(InputError, match="elsewhere"), DirectoryLock(tmp_path, patient=True):
        pass
    assert len(waits) == 9 and path.exists()


def test_one_dated_in_the_future_ends_if_it_is_not_renewed(tmp_path, monkeypatch, capfd):
    """As of a machine that was started again, and its clock corrected."""
    monkeypatch.setattr(module.random, "uniform", lambda low, high: 0.1)
    monkeypatch.setattr(module, "COUNTS_FOR", 0.7)
    other = {"host": "elsewhere", "machine": "other"}
    path = rewrite(tmp_path, age=-3e7, **other)
    with DirectoryLock(tmp_path):
        assert not path.exists()
    assert "waiting whether process 7 on elsewhere" in capfd.readouterr().err

    path, sleep, waits = rewrite(tmp_path, age=-3e7, **other), time.sleep, []

    def slept(seconds: float) -> None:
        waits.append(seconds)
        sleep(seconds)
        if len(waits) == 4:
            rewrite(tmp_path, age=-2e7)

    monkeypatch.setattr(module.time, "sleep", slept)
    with pytest.raises(InputError, match="by process 7 on elsewhere"), DirectoryLock(tmp_path):
        pass
    assert len(waits) == 4 and path.exists()


@pytest.mark.parametrize("value", ["abc", None, [], float("nan"), float("inf"), 10**400])
def test_damaged_numbers_are_none(tmp_path, value):
    here = {"machine": module._machine(), "pids": module._pid_namespace()}
    fields = {"pid": value, "since": value, "renewed": value}
    rewrite(tmp_path, **fields, machine="other")
    with pytest.raises(InputError, match=r"being trained in by process .* for 0:00:00"):
        DirectoryLock(tmp_path).__enter__()
    rewrite(tmp_path, **fields, **here)  # there is no such process
    with DirectoryLock(tmp_path):
        pass


def test_that_of_another_container_on_this_machine_counts_if_flock_does_not_tell(tmp_path):
    device = tmp_path.stat().st_dev
    rewrite(tmp_path, machine=module._machine(), pids="pid:[1]", flocked=device + 1)
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
        deadline = time.monotonic() + 5
        while time.time() - path.stat().st_mtime > 20:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    time.sleep(0.1)
    assert not claims(tmp_path)


def test_a_bucket_is_locked_without_flock(bucket):
    with DirectoryLock(bucket) as held:
        assert len(claims(bucket)) == 1
        with pytest.raises(InputError, match=rf"gs://bucket/run .*process {os.getpid()}"):
            DirectoryLock(bucket).__enter__()
        held._renew()
        held.check()
    assert not claims(bucket)
