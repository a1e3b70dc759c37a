"""The patience of the server with clients, and its end, over real sockets."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pivq_jax.explore import connections
from pivq_jax.explore import server as server_module
from pivq_jax.explore.uploads import MAX_BYTES
from tests.conftest import ROOT

ASKS = b'{"code": 1}'  # of /api/neighbours


def until(holds: Callable[[], bool]) -> None:
    """Waits a minute for what comes true in another thread."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def head(path: str, method: str, length: int) -> bytes:
    lines = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n"
    return lines.encode()


class Running:
    """A server in a thread around an engine that does next to nothing."""

    def __init__(self) -> None:
        self.begun, self.end = threading.Event(), threading.Event()
        model = SimpleNamespace(fingerprint=b"")
        engine: Any = SimpleNamespace(
            describe=dict, neighbours=self.neighbours, size=16, model=model, left=[], later=None
        )
        listener = server_module.listen("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.server = server_module.make_server(engine, "127.0.0.1")
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]})
        self.thread.start()
        assert self.send("/api/model", "GET").recv(100).startswith(b"HTTP/1.1 200")

    def neighbours(self, code: int) -> np.ndarray:
        self.begun.set()
        assert self.end.wait(60)
        return np.arange(2)

    def connect(self, start: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(start)
        return connection

    def send(self, path: str, method: str, body: bytes = b"") -> socket.socket:
        return self.connect(head(path, method, len(body)) + body)


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(server_module, "END_SECONDS", 0.1)
    server = Running()
    yield server
    server.end.set()
    server.server.should_exit = True
    server.thread.join(60)
    assert not server.thread.is_alive()


def test_the_end_is_quiet_while_requests_run(running, monkeypatch, capsys):
    failed: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    connections = [running.send("/api/neighbours", "POST", ASKS) for _ in range(4)]
    assert running.begun.wait(60)
    running.server.should_exit = True  # as Ctrl-C does
    ended = threading.Timer(1, running.end.set)  # after the server's patience
    ended.start()
    running.thread.join(60)
    assert not running.thread.is_alive()
    for connection in connections:
        connection.recv(10_000)  # an answer, or the end: it does not hang
    assert not failed and capsys.readouterr().err == ""


def status(connection: socket.socket) -> int:
    """The status of an answer; 0 if the connection ends without one."""
    try:
        return int((connection.recv(10_000) or b"HTTP/1.1 0").split()[1])
    except ConnectionError:
        return 0


def upload(running: Running, size: int, path: str = "/api/encode") -> socket.socket:
    """An upload whose end is missing."""
    return running.connect(head(path, "POST", size) + b"abc")


def test_the_fifth_large_file_is_refused_while_four_are_received(running):
    small = [upload(running, 10**5) for _ in range(20)]
    assert status(running.send("/api/encode", "POST", b"no image")) == 400
    stalled = [*small, *(upload(running, MAX_BYTES) for _ in range(4))]
    until(lambda: status(upload(running, MAX_BYTES)) == 429)
    chunked = b"POST /api/encode HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert status(running.connect(chunked)) == 429  # it may become as large
    assert status(running.send("/api/model", "GET")) == 200
    for connection in stalled:
        connection.close()
    until(lambda: status(running.send("/api/encode", "POST", b"no image")) == 400)


def test_a_body_has_a_deadline(running, monkeypatch):
    monkeypatch.setattr(server_module, "BODY_SECONDS", 0.1)
    for path in ("encode", "decode"):
        assert status(upload(running, 100, f"/api/{path}")) == 408
    assert status(running.send("/api/encode", "POST", b"no image")) == 400


def test_a_head_has_a_deadline_also_on_a_connection_that_is_kept_alive(running, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    stalled, sent = running.connect(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: b"), 0
    with contextlib.suppress(ConnectionError):
        while sent < 6_000:  # a minute: what arrives late does not help
            stalled.sendall(b"b")
            sent += 1
            time.sleep(0.01)
    assert 0 < sent < 6_000
    kept = running.send("/api/model", "GET")
    assert status(kept) == 200
    assert status(kept) == 0


def test_an_answer_that_no_one_reads_is_given_up(running, monkeypatch):
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.3)
    monkeypatch.setattr(server_module, "_plain", lambda value: "a" * 10**8)
    running.end.set()
    connection = running.send("/api/neighbours", "POST", ASKS)
    assert running.begun.wait(60)
    until(lambda: not running.server.server_state.connections)
    with contextlib.suppress(ConnectionError):
        received = 0
        while part := connection.recv(2**20):
            received += len(part)
        assert received < 10**8


def test_the_oldest_waiting_connection_of_a_client_makes_room(running, monkeypatch):
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 8)
    asking = running.send("/api/neighbours", "POST", ASKS)
    assert running.begun.wait(60)
    waiting = [running.connect(b"GET / HTT") for _ in range(30)]
    assert status(running.send("/", "GET")) == 200
    for connection in waiting[:20]:
        assert status(connection) == 0
    assert len(running.server.server_state.connections) <= 8
    running.end.set()
    assert status(asking) == 200


def test_who_has_as_many_requests_as_there_may_be_gets_no_more(running, monkeypatch):
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 3)
    asking = [running.send("/api/neighbours", "POST", ASKS) for _ in range(3)]
    until(lambda: len(running.server.server_state.tasks) == 3)
    assert status(running.send("/api/model", "GET")) == 0
    running.end.set()
    assert [status(connection) for connection in asking] == [200] * 3


COMPUTES = """
import time
from types import SimpleNamespace
from pivq_jax.explore import server

def neighbours(code):
    print("begun", flush=True)
    time.sleep(600)

server.END_SECONDS = 0.1
model = SimpleNamespace(fingerprint=b"")
engine = SimpleNamespace(model=model, neighbours=neighbours, left=[], later=None)
listener = server.listen("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)
server.make_server(engine, "127.0.0.1").run(sockets=[listener])
"""


@pytest.mark.parametrize("patient", [False, True], ids=["at once", "after the server's end"])
def test_the_second_ctrl_c_ends_the_process_whatever_it_computes(patient):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", COMPUTES]
    with subprocess.Popen(command, stdout=pipe, text=True, env=environment) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(head("/api/neighbours", "POST", len(ASKS)) + ASKS)
            assert process.stdout.readline() == "begun\n"
            process.send_signal(signal.SIGINT)
            if patient:
                assert status(connection) in (0, 500)  # the server has ended, its thread has not
                time.sleep(1)
            assert process.poll() is None
            while process.poll() is None:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10 if patient else 0.5)
                    break
        assert process.wait(60) == 130
