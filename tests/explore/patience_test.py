"""The end of the server, over real sockets."""

import json
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pivq_jax.explore import server as server_module


class Running:
    """A server in a thread around an engine that does next to nothing."""

    def __init__(self) -> None:
        self.begun, self.end = threading.Event(), threading.Event()
        engine: Any = SimpleNamespace(describe=lambda: {"id": ""}, neighbours=self.neighbours)
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

    def send(self, path: str, method: str, body: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return connection


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
