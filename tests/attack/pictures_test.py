"""Crafted pictures, one after another, in a server that may have 1 GiB of memory."""

import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.explore.crafted_pictures import CRAFTED
from tests.explore.image_files import content_of, picture

pytestmark = pytest.mark.slow

SERVER = """
import resource
resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))

from pivq_jax.config import load_config
from pivq_jax.explore import server
from tests.conftest import TINY
from tests.explore.engines import untrained_engine

engine = untrained_engine(load_config("image_folder:smoke").with_fields(TINY))
listener = server.listen("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)
server.make_server(engine, "127.0.0.1").run(sockets=[listener])
"""


@pytest.fixture
def limited(tmp_path) -> Iterator[tuple[int, int]]:
    """The process and the port of a server of an untrained model."""
    errors = tmp_path / "errors"
    with errors.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=file, text=True, cwd=ROOT
        )
    assert process.stdout
    line = process.stdout.readline()
    assert line, errors.read_text()
    yield process.pid, int(line)
    process.terminate()
    process.wait(60)
    assert "Traceback" not in errors.read_text(), errors.read_text()


def test_crafted_pictures_neither_end_nor_stop_the_server(limited):
    pid, port = limited

    def ask(method: str, path: str, body: bytes = b"") -> tuple[int, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request(method, path, body)
        answer = connection.getresponse()
        said = json.loads(answer.read())
        connection.close()
        return answer.status, said

    for name, (word, make) in CRAFTED.items():
        status, said = ask("POST", "/api/encode", make())
        assert status == (400 if word else 200), (name, said)
        assert word in said.get("error", ""), (name, said)
        assert ask("GET", "/api/model")[0] == 200, name
    assert ask("POST", "/api/encode", content_of(picture(), "PNG"))[0] == 200
    usage = Path(f"/proc/{pid}/status").read_text()
    assert 1024 * int(re.findall(r"VmHWM:\s+(\d+)", usage)[0]) < 2**30
