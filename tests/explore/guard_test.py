"""Which requests are refused, and with what headers all are answered."""

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from pivq_jax.explore.guard import Guard


def client(base: str = "http://127.0.0.1:8765", address: str = "127.0.0.1") -> TestClient:
    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse("answered")

    routes = [Route(path, answer, methods=["GET", "POST"]) for path in ("/", "/api/model")]
    app = Starlette(routes=routes, middleware=[Middleware(Guard, address=address)])
    return TestClient(app, base_url=base)


@pytest.mark.parametrize(
    "base",
    [
        "http://LOCALHOST",
        "http://[::1]:8765",
        "http://192.168.1.7:9000",  # of a tunnel, or where the server listens for a network
        "http://faces.example:8765",
    ],
)
def test_names_of_this_machine_and_numbers_are_answered(base):
    assert client(base, "faces.example").get("/api/model").text == "answered"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8765",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "[::1].evil.example",
        "[",
        "",
        "localhost, evil.example",
    ],
)
def test_other_hosts_are_refused(host):
    answer = client().get("/api/model", headers={"Host": host})
    assert answer.status_code == 403 and "localhost" in answer.json()["error"]


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:8765", "http://127.0.0.1:1234", ""]
)
def test_other_origins_are_refused(origin):
    for method in ("GET", "POST"):
        answer = client().request(method, "/api/model", headers={"Origin": origin})
        assert answer.status_code == 403 and "another site" in answer.json()["error"]
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_pages_of_other_sites_are_refused_even_without_an_origin():
    asked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    for path in ("/", "/api/model"):
        assert client().get(path, headers=asked).status_code == 403
    opened = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client().get("/", headers=opened).text == "answered"  # a link
    assert client().post("/", headers=opened).status_code == 403  # a form
    assert client().get("/api/model", headers=opened).status_code == 403


def test_the_page_itself_is_answered():
    own = {"Origin": "http://127.0.0.1:8765", "Sec-Fetch-Site": "same-origin"}
    assert client().post("/api/model", headers=own).text == "answered"


@pytest.mark.parametrize("path, host", [("/", None), ("/missing", None), ("/", "evil.example")])
def test_every_answer_is_confined(path, host):
    headers = client().get(path, headers={"Host": host} if host else {}).headers
    policy = dict(part.split(maxsplit=1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] == "same-origin"
