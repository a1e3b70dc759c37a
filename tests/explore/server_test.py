"""Requests and answers, without a browser."""

import asyncio
import base64
import json
import re
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient

from pivq_jax.codec import container, to_bytes
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


@pytest.mark.parametrize(
    "path", ["/server.py", "/../server.py", "/%2e%2e/server.py", "/page/index.html", "/etc/passwd"]
)
def test_nothing_else_is_served(client, path):
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


def test_a_page_of_another_model_is_told_to_reload(client, engine):
    def answer_to(model: str):
        return client.post("/api/neighbours", json={"code": 3}, headers={"X-Model": model})

    assert answer_to(engine.describe()["id"]).status_code == 200
    answer = answer_to("0" * 16)
    assert answer.status_code == 409 and "reload the page" in answer.json()["error"]


def test_an_own_image_is_cropped_and_encoded(client, engine, tmp_path):
    content = content_of(picture(60, 40), "PNG")
    (tmp_path / "own.png").write_bytes(content)
    answer = client.post("/api/encode", content=content).json()
    image = load_image(tmp_path / "own.png", SIZE)
    np.testing.assert_array_equal(image_of(answer["image"]), image)
    assert answer["codes"] == engine.encode(image).tolist()


def test_codes_are_saved_and_opened(client, engine):
    codes = engine.example(3).codes.tolist()
    saved = client.post("/api/codes/write", json={"codes": codes})
    assert saved.headers["content-type"] == "application/octet-stream"
    assert client.post("/api/codes/read", content=saved.content).json() == codes


def test_a_file_of_codes_is_read_while_the_model_is_busy(client, engine, monkeypatch):
    """Its names took ten seconds in which no request was answered."""
    begun, end, waited = threading.Event(), threading.Event(), []
    content = engine.write_codes(codes := engine.example(3).codes)

    def busy(code: int) -> np.ndarray:
        begun.set()
        waited.append(end.wait(60))
        return np.arange(3)

    monkeypatch.setattr(engine, "neighbours", busy)
    with client:
        first = threading.Thread(target=lambda: ask(client, "neighbours", code=1))
        first.start()
        assert begun.wait(60)
        assert client.post("/api/codes/read", content=content).json() == codes.tolist()
        assert not waited  # otherwise the file had to wait for the model
        end.set()
        first.join()
    assert waited == [True]


def test_a_file_of_codes_with_a_million_names_is_refused_before_they_are_read(
    client, engine, monkeypatch
):
    names = [f"{i}" for i in range(engine_module.MAX_FILE_IMAGES + 1)]
    codes = np.arange(N)[None].repeat(len(names), 0)
    most = to_bytes(engine.model, codes[1:], names[1:])
    assert client.post("/api/codes/read", content=most).json() == list(range(N))
    content = to_bytes(engine.model, codes, names)
    monkeypatch.setattr(container, "check_names", None)
    answer = client.post("/api/codes/read", content=content)
    assert answer.status_code == 400
    assert "10,001 images, more than 10,000" in answer.json()["error"]


EDIT = b'{"codes": [0, 1, 2, 3, 4, 5, 6, 7], "factor": %s}'
WRONG = {
    "no JSON": ("decode", b"{", "JSON"),
    "no object": ("decode", b"[1]", "JSON"),
    "deep": ("decode", b"[" * 100_000, "JSON"),
    "a long number": ("decode", b'{"sets": ' + b"9" * 10_000 + b"}", "JSON"),
    "no sets": ("decode", b"{}", "codes"),
    "no codes": ("nearest", b'{"codes": "../../etc/passwd"}', "codes"),
    "not a number": ("nearest", b'{"codes": [NaN, 1, 2, 3, 4, 5, 6, 7]}', "codes"),
    "no index": ("example", b'{"index": "0"}', "index"),
    "a truth": ("example", b'{"index": true}', "index"),
    "an index too large": ("example", b'{"index": 99999}', "99999"),
    "negative": ("examples", b'{"start": -1, "count": 3}', "start"),
    "none": ("examples", b'{"start": 0, "count": 0}', "no 0 test images"),
    "too many": ("examples", b'{"start": 0, "count": 1000}', "1000"),
    "no seed": ("recombine", b"{}", "seed"),
    "no entry": ("neighbours", b'{"code": 32}', "31"),
    "no codes to read": ("factors/read", b'{"codes": [1, 2]}', "codes"),
    "no codes to edit": ("edit", b'{"factor": 0, "value": 0}', "codes"),
    "no factor": ("edit", EDIT % b'1, "value": 0', "factor 1"),
    "no value": ("edit", EDIT % b'0, "value": 2', "value 2"),
    "a named value": ("edit", EDIT % b'0, "value": "light"', "value must be"),
    "a negative factor": ("edit", EDIT % b'-1, "value": 0', "factor must be"),
    "no image": ("encode", b"<html>", "JPEG or WEBP"),
    "no file of codes": ("codes/read", b"PK", "file of codes"),
    "nothing to write": ("codes/write", b"{}", "codes"),
    "nothing": ("encode", b"", "JPEG or WEBP"),
}


@pytest.mark.parametrize("name, body, word", WRONG.values(), ids=WRONG)
def test_wrong_requests_get_a_sentence(client, name, body, word):
    answer = client.post(f"/api/{name}", content=body)
    assert answer.status_code == 400
    assert answer.json().keys() == {"error"} and word in answer.json()["error"]


def test_only_the_page_of_this_server_is_answered(client):
    headers = {"Host": "evil.example"}  # others: guard_test.py
    assert client.post("/api/example", headers=headers, json={"index": 0}).status_code == 403
    assert client.get("/api/model", headers=headers).status_code == 403
    assert client.options("/api/example").status_code == 405  # no CORS
    assert client.get("/api/example").status_code == 405


def test_a_body_above_the_limit_is_refused_before_it_is_read(client, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_BYTES", 2**20)
    read = []

    def parts():
        for _ in range(64):
            read.append(2**18)
            yield bytes(2**18)

    answer = client.post("/api/encode", content=parts())  # of unknown length
    assert answer.status_code == 413 and "1 MB" in answer.json()["error"]
    assert client.post("/api/encode", content=bytes(2**20 + 1)).status_code == 413
    assert client.post("/api/encode", content=bytes(2**20)).status_code == 400
    assert client.post("/api/decode", content=bytes(MAX_JSON + 1)).status_code == 413


def test_a_second_file_is_refused_while_one_is_read(client, monkeypatch):
    begun, end = threading.Event(), threading.Event()

    def slow(content: bytes, size: int) -> np.ndarray:
        begun.set()
        assert end.wait(60)
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr(server_module, "read_image", slow)
    with client:  # one event loop for both requests
        answers = []
        first = threading.Thread(
            target=lambda: answers.append(client.post("/api/encode", content=b"image"))
        )
        first.start()
        assert begun.wait(60)
        second = client.post("/api/encode", content=b"image")
        assert second.status_code == 429 and "another file" in second.json()["error"]
        assert ask(client, "example", index=0)["codes"]  # what is small goes on
        end.set()
        first.join()
        assert answers[0].status_code == 200
        assert client.post("/api/encode", content=b"image").status_code == 200


def test_what_fails_inside_is_not_told_outside(client, engine, monkeypatch, capsys):
    def broken(*arguments: object) -> None:
        raise RuntimeError("secret path /home/someone")

    monkeypatch.setattr(engine, "neighbours", broken)
    answer = client.post("/api/neighbours", json={"code": 1})
    assert answer.status_code == 500 and "secret" not in answer.text
    assert "secret" in capsys.readouterr().err


def test_work_is_done_one_after_another_and_left_where_nobody_waits():
    at_once, most, done = 0, 0, []

    def job(name: str) -> str:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.01)
        at_once -= 1
        done.append(name)
        return name

    def request(gone: bool):
        async def is_disconnected() -> bool:
            return gone

        return SimpleNamespace(is_disconnected=is_disconnected)

    async def several() -> list:
        work = Work()
        jobs = [work.run(request(name == "b"), job, name) for name in "abc"]
        return await asyncio.gather(*jobs, return_exceptions=True)

    a, b, c = asyncio.run(several())
    assert (a, c) == ("a", "c") and done == ["a", "c"] and most == 1
    assert isinstance(b, ClientDisconnect)


def test_a_port_in_use_and_an_unknown_address_are_errors():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert url(first, "127.0.0.1") == f"http://127.0.0.1:{port}/"
        with pytest.raises(InputError, match=f"port {port} .*in use.*--port"):
            listen("127.0.0.1", port)
    with listen("127.0.0.1", port):  # at once after the first has ended
        pass
    for address in ("no.such.host.invalid", "127.0.0..1"):
        with pytest.raises(InputError, match=f"--address={re.escape(address)} is unknown"):
            listen(address, 0)
    with pytest.raises(InputError, match="another --address or --port"):
        listen("203.0.113.7", 0)


def test_an_address_of_version_6_stands_in_brackets():
    try:
        listener = listen("::1", 0)
    except (OSError, InputError):
        pytest.skip("this machine has no IPv6")
    with listener:
        assert url(listener, "::1").startswith("http://[::1]:")


class Slow:
    """An engine that has steps to do, and data to open, which ends when a test says so."""

    def __init__(self) -> None:
        self.model = SimpleNamespace(fingerprint=b"x")
        self.opened, self.taken, self.done = threading.Event(), [], []
        self.left = [("compiling", lambda: self.done.append(1))]
        self.later: Any = self.open_data
        self.size, self.fails = SIZE, False

    def describe(self) -> dict[str, object]:
        return {"id": "x", "taken": len(self.taken)}

    def open_data(self) -> str:
        assert self.opened.wait(60)
        if self.fails:
            raise InputError("nothing draws faces here")
        return "faces"

    def take(self, data: str) -> None:
        self.taken.append(data)


def progress_at_end(client: TestClient) -> Any:
    """Waits until the work in the background has ended."""
    for _ in range(600):
        if (found := client.get("/api/progress").json())["fraction"] == 1:
            return found
        time.sleep(0.1)
    pytest.fail("the work in the background does not end")


@pytest.mark.parametrize("fails", [False, True])
def test_the_page_answers_while_no_face_is_drawn_yet(capsys, fails):
    engine = Slow()
    engine.fails = fails
    app = make_app(engine, "127.0.0.1")  # type: ignore[arg-type]
    with TestClient(app, base_url=ORIGIN) as client:
        assert client.get("/").status_code == 200
        assert client.get("/api/model").json() == {"id": "x", "taken": 0}
        for _ in range(600):
            if (progress := client.get("/api/progress").json())["text"] == "getting test images":
                break
            time.sleep(0.1)
        assert progress["fraction"] == 0.5 and engine.done == [1]
        assert client.get("/api/model").status_code == 200  # while faces are drawn
        engine.opened.set()
        progress_at_end(client)
        assert client.get("/api/model").json()["taken"] == (0 if fails else 1)
    assert engine.taken == ([] if fails else ["faces"])
    assert ("nothing draws faces here" in capsys.readouterr().out) == fails


def test_nothing_is_left_to_do_by_an_engine_that_is_ready(client):
    assert client.get("/api/progress").json() == {"text": "", "fraction": 1}
