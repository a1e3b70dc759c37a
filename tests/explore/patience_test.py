"""Connections that stall, and the end of the server, over real sockets."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import uvicorn

from pivq_jax.explore import server as server_module


class Running:
    """A server in a thread around an engine that does next to nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.end = threading.Event(), threading.Event()
        engine: Any = SimpleNamespace(
            describe=dict, neighbours=self.neighbours, read_codes=lambda content: np.arange(2)
        )
        servers: list[uvicorn.Server] = []

        def make(config: uvicorn.Config) -> uvicorn.Server:
            servers.append(REAL_SERVER(config))
            return servers[-1]

        monkeypatch.setattr(server_module.uvicorn, "Server", make)
        listener = server_module.listen("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.thread = threading.Thread(
            target=server_module.serve, args=(engine, listener, "127.0.0.1")
        )
        self.thread.start()
        assert self.send("/api/model", "GET").recv(100).startswith(b"HTTP/1.1 200")
        self.server = servers[0]

    def neighbours(self, code: int) -> np.ndarray:
        self.begun.set()
        assert self.end.wait(60)
        return np.arange(2)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def send(self, path: str, method: str, body: bytes = b"", length: int = 0) -> socket.socket:
        connection = self.connect()
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        head += f"Content-Length: {length or len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return connection


REAL_SERVER = uvicorn.Server


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(server_module, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(server_module, "END_SECONDS", 0.1)
    server = Running(monkeypatch)
    yield server
    server.end.set()
    server.server.should_exit = True
    server.thread.join(60)
    assert not server.thread.is_alive()


def test_a_stalled_upload_is_ended_and_the_next_one_is_read(running):
    stalled = running.send("/api/codes/read", "POST", b"abc", length=100_000)
    answer = stalled.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 408") and b"more than 0.3 seconds" in answer
    assert stalled.recv(100) == b""  # closed
    assert running.send("/api/codes/read", "POST", b"abc").recv(100).startswith(b"HTTP/1.1 200")


def test_stalled_uploads_keep_no_one_out(running, monkeypatch):
    monkeypatch.setattr(server_module, "BODY_SECONDS", 60.0)
    stalled = [
        running.send(f"/api/{name}", "POST", bytes(100_000), length=2**20)
        for name in ("codes/read", "encode", "codes/read")
    ]
    answer = running.send("/api/codes/read", "POST", b"abc").recv(100)
    assert answer.startswith(b"HTTP/1.1 200")
    for connection in stalled:
        connection.close()


def test_all_that_is_received_at_once_is_limited(running, monkeypatch):
    monkeypatch.setattr(server_module, "BODY_SECONDS", 60.0)
    monkeypatch.setattr(server_module, "MAX_RECEIVED", 150_000)
    stalled = running.send("/api/codes/read", "POST", bytes(100_000), length=2**20)

    def answered(status: int) -> bool:
        """Whether it comes, once the server knows what has happened before."""
        tries = (running.send("/api/codes/read", "POST", bytes(100_000)) for _ in range(1_000))
        return any(each.recv(100).startswith(b"HTTP/1.1 %d" % status) for each in tries)

    assert answered(429)
    stalled.close()
    assert answered(200)


@pytest.mark.parametrize("start", [b"", b"GET /api/mo", b"GET / HTTP/1.1\r\nHost: 127.0"])
def test_connections_on_which_no_request_comes_are_closed(running, start):
    connections = [running.connect() for _ in range(20)]
    for connection in connections:
        connection.sendall(start)
    assert [connection.recv(100) for connection in connections] == [b""] * 20


def test_a_slow_answer_is_waited_for_and_the_connection_used_again(running):
    connection = running.send("/api/neighbours", "POST", b'{"code": 1}')
    assert running.begun.wait(60)
    time.sleep(1)  # more than the patience with a request
    running.end.set()
    assert connection.recv(10_000).startswith(b"HTTP/1.1 200")
    connection.sendall(b"GET /api/model HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert connection.recv(10_000).startswith(b"HTTP/1.1 200")


def test_the_end_is_quiet_while_requests_run(running, monkeypatch, capsys):
    failed: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    body = json.dumps({"code": 1}).encode()
    connections = [running.send("/api/neighbours", "POST", body) for _ in range(4)]
    assert running.begun.wait(60)
    running.server.should_exit = True  # as Ctrl-C does
    ended = threading.Timer(1, running.end.set)  # after the server's patience
    ended.start()
    running.thread.join(60)
    assert not running.thread.is_alive()
    for connection in connections:
        connection.recv(10_000)  # an answer, or the end: it does not hang
    assert not failed and capsys.readouterr().err == ""
