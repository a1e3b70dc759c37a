"""The page under attack: slow connections, 2,000 requests of all kinds, its server's memory.

What each request is answered is in tests/explore: server_test.py, guard_test.py, patience_test.py.
"""

import http.client
import json
import random
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.explore.image_files import claimed_jpeg, claimed_png, content_of, picture

pytestmark = pytest.mark.slow

SERVER = """
import sys
from pivq_jax.config import load_config
from pivq_jax.explore import server
from tests.conftest import TINY
from tests.explore.engines import untrained_engine

engine = untrained_engine(load_config("image_folder:smoke").with_fields(TINY))
listener = server.listen("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)
server.make_server(engine, "127.0.0.1").run(sockets=[listener])
"""


class Server:
    """A server of an untrained model, in a process of its own."""

    def __init__(self, process: subprocess.Popen, port: int) -> None:
        self.process, self.port = process, port

    def memory(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.findall(r"VmRSS:\s+(\d+)", status)[0])

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.putrequest(method, path, skip_host="Host" in headers)
        connection.putheader("Content-Length", str(len(body)))
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    yield from started(SERVER, tmp_path / "errors")


def started(code: str, errors: Path) -> Iterator[Server]:
    """Starts a server, and ends it."""
    with errors.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=file, text=True, cwd=ROOT
        )
    assert process.stdout
    line = process.stdout.readline()
    assert line, errors.read_text()
    yield Server(process, int(line))
    process.terminate()
    process.wait(60)
    assert "Traceback" not in errors.read_text(), errors.read_text()


def requests(rng: random.Random, codes: list[int]) -> Iterator[tuple[list[int], tuple, dict]]:
    """Requests without end: which status each may get, its arguments, its headers."""
    sets = json.dumps({"sets": [codes], "codes": codes, "a": codes, "b": codes[::-1]}).encode()
    own = content_of(picture(), "PNG")
    good = [
        ("GET", "/"),
        ("GET", "/explorer.js"),
        ("GET", "/api/model"),
        ("POST", "/api/examples", b'{"start": 0, "count": 4}'),
        ("POST", "/api/decode", sets),
        ("POST", "/api/pair", sets),
        ("POST", "/api/nearest", sets),
        ("POST", "/api/codes/write", sets),
        ("POST", "/api/encode", own),
    ]
    traversal = [
        "/../server.py",
        "/%2e%2e/server.py",
        "/%2e%2e%2f%2e%2e%2fserver.py",
        "/..%5cserver.py",
        "/%252e%252e/server.py",
        "//etc/passwd",
        "/api/..%2f..%2f..%2fetc%2fpasswd",
        "/explorer.js%00.html",
        "/%ff%fe",
    ]
    bombs = [
        claimed_png(100_000, 100_000),
        claimed_png(2**20, 2**10),
        claimed_jpeg(60_000, 60_000),
        own[: len(own) // 2],
        b"PIVQ" + bytes(100),
        b"",
        bytes(200_000),
    ]
    bodies = [b"[" * 100_000, b'{"sets": ' + b"9" * 10_000 + b"}", b"\xff\xfe", b"{}", b"null"]
    names = ("decode", "pair", "nearest", "recombine", "example", "examples", "neighbours", "edit")
    while True:
        kind = rng.randrange(6)
        if kind == 0:
            yield [200], rng.choice(good), {}
        elif kind == 1:
            host = rng.choice(["evil.example", "127.0.0.1.evil.example", "[", "localhost@evil"])
            yield [403], ("GET", rng.choice(["/", "/api/model"])), {"Host": host}
        elif kind == 2:
            origin = rng.choice(["http://evil.example", "null", "https://127.0.0.1"])
            yield [403], rng.choice(good), {"Origin": origin}
        elif kind == 3:
            yield [404, 400, 405], ("GET", rng.choice(traversal)), {}
        elif kind == 4:
            where = rng.choice(["/api/encode", "/api/codes/read"])
            yield [400], ("POST", where, rng.choice(bombs)), {}
        else:
            yield [400], ("POST", f"/api/{rng.choice(names)}", rng.choice(bodies)), {}


def test_2_000_requests_leave_the_server_s_memory_as_it_was(server):
    model = json.loads(server.ask("GET", "/api/model")[1])
    codes = list(range(model["numCodes"]))
    rng, memory = random.Random(0), {}
    for done, (expected, arguments, headers) in enumerate(requests(rng, codes), 1):
        status, content = server.ask(*arguments, **headers)
        assert status in expected, (status, arguments[:2], headers, content[:300])
        assert b"root:" not in content and b"Traceback" not in content
        if done in (200, 2_000):
            memory[done] = server.memory()
        if done == 2_000:
            break
    print({done: f"{size / 2**20:.0f} MiB" for done, size in memory.items()})
    assert memory[2_000] < 1.1 * memory[200]


def test_100_slow_connections_keep_no_one_out(server):
    begun = {
        b"": 40,
        b"GET / HTT": 20,
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: b": 20,
        b"POST /api/encode HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\nabc": 20,
    }
    connections = []
    for start, count in begun.items():
        for _ in range(count):
            connections.append(socket.create_connection(("127.0.0.1", server.port), timeout=90))
            connections[-1].sendall(start)
    assert len(connections) == 100
    for _ in range(20):
        assert server.ask("GET", "/api/model")[0] == 200
        assert server.ask("POST", "/api/encode", content_of(picture(), "PNG"))[0] == 200
    for connection in connections:
        connection.close()
