"""Crafted pictures, one after another, in a server that may have 1 GiB of memory."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attack.page_test import SERVER, Server, started
from tests.explore.crafted_pictures import CRAFTED
from tests.explore.image_files import content_of, picture

pytestmark = pytest.mark.slow

LIMITED = f"import resource\nresource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))\n{SERVER}"


@pytest.fixture
def limited(tmp_path) -> Iterator[Server]:
    yield from started(LIMITED, tmp_path / "errors")


def most_memory(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", status)[0])


def test_crafted_pictures_neither_end_nor_stop_the_server(limited):
    assert len(CRAFTED) >= 30
    for name, (word, make) in CRAFTED.items():
        status, answer = limited.ask("POST", "/api/encode", make())
        said = json.loads(answer)
        assert status == (400 if word else 200), (name, said)
        assert word in said.get("error", ""), (name, said)
        assert limited.ask("GET", "/api/model")[0] == 200, name
    assert limited.ask("POST", "/api/encode", content_of(picture(), "PNG"))[0] == 200
    print(f"{most_memory(limited) / 2**20:,.0f} MiB at most")
    assert most_memory(limited) < 2**30
