"""Requests and answers, without a browser."""

import asyncio
import base64
import json
import re
import threading
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import numpy as np
import pytest
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient

from pivq_jax.codec import to_bytes
from pivq_jax.common.errors import InputError
from pivq_jax.data.images import load_image
from pivq_jax.explore import engine as engine_module
from pivq_jax.explore import server as server_module
from pivq_jax.explore.server import MAX_JSON, PAGE, Work, listen, make_app, url
from tests.explore.image_files import content_of, picture

N, SIZE = 8, 16  # of the tiny model
ORIGIN = "http://127.0.0.1:8765"


@pytest.fixture(scope="module")
def client(engine) -> TestClient:
    return TestClient(make_app(engine, "127.0.0.1"), base_url=ORIGIN)


def ask(client: TestClient, name: str, **body: object):
    answer = client.post(f"/api/{name}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def image_of(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(SIZE, SIZE, 3)


def test_the_page_and_its_files_are_served(client):
    answer = client.get("/")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    served = {"/"}
    for kind, pattern in (("html", r'(?:src|href)="([^"]+)"'), ("js", r'from "\./([^"]+)"')):
        for file in PAGE.glob(f"*.{kind}"):
            for name in re.findall(pattern, file.read_text()):
                answer = client.get(f"/{name}")
                assert answer.status_code == 200, name
                assert answer.content == (PAGE / name).read_bytes()
                served.add(f"/{name}")
    assert {"/start.js", "/explorer.js", "/backend.js", "/base.css"} <= served
    assert client.get("/explorer.js").headers["content-type"].startswith("text/javascript")
    for path in ("/server.py", "/%2e%2e/server.py", "/page/index.html"):
        assert client.get(path).status_code == 404


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_inline():
    for file in PAGE.iterdir():
        text = file.read_text()
        if file.suffix in (".html", ".css"):
            assert not re.search(r"https?://(?!www\.w3\.org)", text)
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert not re.search(r"<script>|<style>|\son\w+=|\sstyle=", text), file


def test_every_answer_is_that_of_the_engine(client, engine):
    assert client.get("/api/model").json() == json.loads(json.dumps(engine.describe()))
    assert client.get("/api/progress").json() == {"text": "", "fraction": 1}
    test = engine.dataset.test
    images = ask(client, "examples", start=3, count=4)
    for index, image in enumerate(images):
        np.testing.assert_array_equal(image_of(image), test[3 + index]["image"])
    a, b = ask(client, "example", index=0), ask(client, "example", index=1)
    assert a["name"] == "test image 0" and a["codes"] == engine.example(0).codes.tolist()
    pairs = ask(client, "pair", a=a["codes"], b=b["codes"])
    expected = engine.pair(np.array(a["codes"]), np.array(b["codes"]))
    assert pairs == {name: part.tolist() for name, part in expected._asdict().items()}
    decoded = ask(client, "decode", sets=[a["codes"], pairs["b"]])
    for text, image in zip(decoded, engine.decode(np.array([a["codes"], pairs["b"]])), strict=True):
        np.testing.assert_array_equal(image_of(text), image)
    near = ask(client, "nearest", codes=a["codes"])
    assert near["searched"] == 64 and near["picture"]["name"].startswith("training image ")
    read = engine.read_factors(np.array(a["codes"])).tolist()
    assert ask(client, "factors/read", codes=a["codes"]) == read
    edited = ask(client, "edit", codes=a["codes"], factor=0, value=1)
    assert edited == engine.edit(np.array(a["codes"]), 0, 1).tolist() != a["codes"]
    assert ask(client, "neighbours", code=3) == engine.neighbours(3).tolist()
    face = ask(client, "recombine", seed=7)
    assert face == ask(client, "recombine", seed=7) != ask(client, "recombine", seed=8)
    assert len(face["codes"]) == N and image_of(face["a"]["image"]).shape == (SIZE, SIZE, 3)


def test_only_the_page_of_this_server_and_model_is_answered(client, engine):
    def answer_to(**headers: str):
        return client.post("/api/neighbours", json={"code": 3}, headers=headers)

    assert answer_to(**{"X-Model": engine.describe()["id"]}).status_code == 200
    answer = answer_to(**{"X-Model": "0" * 16})
    assert answer.status_code == 409 and "reload the page" in answer.json()["error"]
    assert answer_to(Host="evil.example").status_code == 403  # others: guard_test.py
    assert client.options("/api/example").status_code == 405  # no CORS
    assert client.get("/api/example").status_code == 405


def test_an_own_image_is_encoded_and_codes_are_saved_and_opened(client, engine, tmp_path):
    content = content_of(picture(60, 40), "PNG")
    (tmp_path / "own.png").write_bytes(content)
    answer = client.post("/api/encode", content=content).json()
    image = load_image(tmp_path / "own.png", SIZE)
    np.testing.assert_array_equal(image_of(answer["image"]), image)
    assert answer["codes"] == engine.encode(image).tolist()
    saved = client.post("/api/codes/write", json={"codes": answer["codes"]})
    assert saved.headers["content-type"] == "application/octet-stream"
    assert client.post("/api/codes/read", content=saved.content).json() == answer["codes"]


def test_a_file_of_codes_of_too_many_images_is_refused(engine, monkeypatch):
    monkeypatch.setattr(engine_module, "MAX_FILE_IMAGES", 1)
    codes = engine.example(3).codes
    with pytest.raises(InputError, match="2 images, more than 1"):
        engine.read_codes(to_bytes(engine.model, np.array([codes, codes]), ["a", "b"]))


EDIT = b'{"codes": [0, 1, 2, 3, 4, 5, 6, 7], "factor": %s}'
WRONG = {
    "no object": ("decode", b"[1]", "JSON"),
    "deep": ("decode", b"[" * 100_000, "JSON"),
    "not a number": ("nearest", b'{"codes": [NaN, 1, 2, 3, 4, 5, 6, 7]}', "codes"),
    "no index": ("example", b'{"index": true}', "index"),
    "an index too large": ("example", b'{"index": 99999}', "99999"),
    "negative": ("examples", b'{"start": -1, "count": 3}', "start"),
    "too many": ("examples", b'{"start": 0, "count": 1000}', "1000"),
    "no entry": ("neighbours", b'{"code": 32}', "31"),
    "no factor": ("edit", EDIT % b'1, "value": 0', "factor 1"),
    "no value": ("edit", EDIT % b'0, "value": 2', "value 2"),
    "no image": ("encode", b"<html>", "JPEG or WEBP"),
    "no file of codes": ("codes/read", b"PK", "file of codes"),
}


@pytest.mark.parametrize("name, body, word", WRONG.values(), ids=WRONG)
def test_wrong_requests_get_a_sentence(client, name, body, word):
    answer = client.post(f"/api/{name}", content=body)
    assert answer.status_code == 400
    assert answer.json().keys() == {"error"} and word in answer.json()["error"]


def test_a_body_above_the_limit_is_refused(client, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_BYTES", 2**20)
    parts = (bytes(2**18) for _ in range(64))  # of unknown length
    answer = client.post("/api/encode", content=parts)
    assert answer.status_code == 413 and "1 MB" in answer.json()["error"]
    assert client.post("/api/encode", content=bytes(2**20)).status_code == 400
    assert client.post("/api/decode", content=bytes(MAX_JSON + 1)).status_code == 413


def test_a_second_file_is_refused_while_one_is_read(client, monkeypatch):
    begun, end, answers = threading.Event(), threading.Event(), []

    def slow(content: bytes, size: int) -> np.ndarray:
        begun.set()
        assert end.wait(60)
        return np.zeros((size, size, 3), np.uint8)

    def send():
        answers.append(client.post("/api/encode", content=b"image"))
        return answers[-1]

    monkeypatch.setattr(server_module, "read_image", slow)
    with client:  # one event loop for both requests
        first = threading.Thread(target=send)
        first.start()
        assert begun.wait(60)
        second = send()
        assert second.status_code == 429 and "another file" in second.json()["error"]
        assert ask(client, "example", index=0)["codes"]  # what is small goes on
        end.set()
        first.join()
        assert answers[-1].status_code == send().status_code == 200


def test_what_fails_inside_is_not_told_outside(client, engine, monkeypatch, capsys):
    def broken(*arguments: object) -> None:
        raise RuntimeError("secret path /home/someone")

    monkeypatch.setattr(engine, "neighbours", broken)
    answer = client.post("/api/neighbours", json={"code": 1})
    assert answer.status_code == 500 and "secret" not in answer.text
    assert "secret" in capsys.readouterr().err


def test_work_is_done_one_after_another_and_left_where_nobody_waits():
    running, done = threading.Lock(), []

    def job(name: str) -> str:
        assert running.acquire(blocking=False)
        time.sleep(0.01)
        running.release()
        done.append(name)
        return name

    def request(gone: bool) -> Any:
        return SimpleNamespace(is_disconnected=AsyncMock(return_value=gone))

    async def several() -> list:
        work = Work()
        jobs = [work.run(request(name == "b"), job, name) for name in "abc"]
        return await asyncio.gather(*jobs, return_exceptions=True)

    a, b, c = asyncio.run(several())
    assert (a, c) == ("a", "c") and done == ["a", "c"]
    assert isinstance(b, ClientDisconnect)


def test_a_port_in_use_and_an_unknown_address_are_errors():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert url(first, "127.0.0.1") == f"http://127.0.0.1:{port}/"
        assert url(first, "::1") == f"http://[::1]:{port}/"
        with pytest.raises(InputError, match=f"port {port} .*in use.*--port"):
            listen("127.0.0.1", port)
    with listen("127.0.0.1", port):  # at once after the first has ended
        pass
    for address in ("no.such.host.invalid", "127.0.0..1"):
        with pytest.raises(InputError, match=f"--address={re.escape(address)} is unknown"):
            listen(address, 0)


@pytest.mark.parametrize("fails", [False, True])
def test_the_page_answers_while_no_face_is_drawn_yet(capsys, fails):
    drawn, done, taken = threading.Event(), [], []

    def draw() -> str:
        assert drawn.wait(60)
        if fails:
            raise InputError("nothing draws faces here")
        return "faces"

    def wait_for(text: str, fraction: float) -> None:
        for _ in range(600):
            if client.get("/api/progress").json() == {"text": text, "fraction": fraction}:
                return
            time.sleep(0.1)
        pytest.fail(f"the work in the background is never at {text!r}")

    engine: Any = SimpleNamespace(
        model=SimpleNamespace(fingerprint=b"x"),
        describe=lambda: {"taken": len(taken)},
        left=[("compiling", lambda: done.append(1))],
        later=draw,
        take=taken.append,
    )
    with TestClient(make_app(engine, "127.0.0.1"), base_url=ORIGIN) as client:
        assert client.get("/").status_code == 200
        wait_for("getting test images", 0.5)
        assert done == [1]
        assert client.get("/api/model").json() == {"taken": 0}  # while faces are drawn
        drawn.set()
        wait_for("", 1)
        assert client.get("/api/model").json() == {"taken": 0 if fails else 1}
    assert taken == ([] if fails else ["faces"])
    assert ("nothing draws faces here" in capsys.readouterr().out) == fails
