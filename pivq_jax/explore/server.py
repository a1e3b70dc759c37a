"""The server behind the page: Starlette and uvicorn around an `Engine`.

Requests and answers are JSON, images in them base64 of uint8 RGB, files as they are; page/server.js
is the other side. JAX does one thing at a time, in a thread beside that of the server.
"""

import asyncio
import base64
import json
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pivq_jax.common.errors import InputError
from pivq_jax.common.parallel import print_once
from pivq_jax.explore.connections import Patience
from pivq_jax.explore.engine import Engine, Picture
from pivq_jax.explore.guard import Guard
from pivq_jax.explore.uploads import MAX_BYTES, read_image

PAGE = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
MAX_JSON = 2**20  # bytes; twelve sets of 4,096 codes fit
FILES = 4  # of the largest size, of which the server receives at most so much at a time
BODY_SECONDS = 60.0  # for the body of a request to arrive
REST_SECONDS = 0.3  # without a request, after which work in the background goes on
END_SECONDS = 2  # for requests to be answered after Ctrl-C; a browser keeps its connections open


class Work:
    """Runs what needs JAX, one after another, in a thread; reads one file at a time."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._asked = -REST_SECONDS  # the time of the last answer
        self._expected = 0  # bytes of files that are being received

    async def run(
        self, request: Request | None, function: Callable[..., Any], *arguments: Any
    ) -> Any:
        """Runs a function when its turn comes, unless the page that asks has given up by then."""
        async with self._lock:
            if request and await request.is_disconnected():
                raise ClientDisconnect
            try:
                return await asyncio.to_thread(function, *arguments)
            finally:
                if request:
                    self._asked = time.monotonic()

    async def rest(self) -> None:
        """Waits until no page has asked for anything for a moment."""
        while self._lock.locked() or time.monotonic() < self._asked + REST_SECONDS:
            await asyncio.sleep(REST_SECONDS / 5)

    @asynccontextmanager
    async def file(self, request: Request) -> AsyncIterator[bytes]:
        """The file that a request brings; there may be one at a time, others are refused.

        So are those which, with what is being received, could become too much.
        """
        told = request.headers.get("content-length", "")
        size = min(int(told), MAX_BYTES) if told.isdecimal() else MAX_BYTES
        if self._expected + size > FILES * MAX_BYTES:
            raise HTTPException(429, "other files are being received: try again in a moment")
        self._expected += size
        try:
            content = await _body(request, MAX_BYTES)
        finally:
            self._expected -= size
        if self._reading.locked():
            raise HTTPException(429, "another file is being read: try again in a moment")
        async with self._reading:
            yield content


class Background:
    """What is left to do by an engine while the page is used, a step at a time."""

    def __init__(self, engine: Engine, work: Work) -> None:
        self._engine, self._work = engine, work
        # What is done now and the fraction done, 1 at the end; for the page.
        self.progress = {"text": "", "fraction": 0.0 if engine.left or engine.later else 1.0}

    @asynccontextmanager
    async def running(self, app: Starlette) -> AsyncIterator[None]:
        """Works while the server runs."""
        task = asyncio.create_task(self._run())
        yield
        task.cancel()

    async def _run(self) -> None:
        engine, steps = self._engine, self._engine.left
        try:
            for index, (text, step) in enumerate(steps):
                self.progress = {"text": text, "fraction": index / (len(steps) + 1)}
                await self._work.rest()
                await self._work.run(None, step)
            engine.left = []
            if engine.later:
                text, fraction = "getting test images", len(steps) / (len(steps) + 1)
                self.progress = {"text": text, "fraction": fraction}
                await self._work.run(None, engine.take, await _beside(engine.later))
                engine.later = None
        except (InputError, ImportError) as error:  # the data cannot be had
            print_once(f"training images, as they decode, stand for test images ({error})")
        except Exception:
            traceback.print_exc()
        self.progress = {"text": "", "fraction": 1.0}


async def _beside(function: Callable[[], Any]) -> Any:
    """Runs a function in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()

    def work() -> None:
        answer: Callable[[], None]
        try:
            answer = partial(result.set_result, function())
        except Exception as error:
            answer = partial(result.set_exception, error)
        with suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(answer)

    threading.Thread(target=work, daemon=True).start()
    return await result


def make_app(engine: Engine, address: str) -> Starlette:
    """Returns the server as an ASGI application; see `Guard` for the address."""
    work = Work()

    def codes_of(body: dict[str, Any], name: str = "codes") -> np.ndarray:
        return engine.check([body.get(name)])[0]

    answers: dict[str, Callable[[dict[str, Any]], Any]] = {
        "examples": lambda body: list(engine.examples(*_integers(body, "start", "count"))),
        "example": lambda body: engine.example(*_integers(body, "index")),
        "pair": lambda body: engine.pair(codes_of(body, "a"), codes_of(body, "b")),
        "decode": lambda body: list(engine.decode(engine.check(body.get("sets")))),
        "recombine": lambda body: engine.recombine(jax.random.key(*_integers(body, "seed"))),
        "draw": lambda body: engine.draw(jax.random.key(*_integers(body, "seed"))),
        "nearest": lambda body: engine.nearest(codes_of(body)),
        "factors/read": lambda body: engine.read_factors(codes_of(body)),
        "edit": lambda body: engine.edit(codes_of(body), *_integers(body, "factor", "value")),
        "codes/write": lambda body: engine.write_codes(codes_of(body)),
        "neighbours": lambda body: engine.neighbours(*_integers(body, "code")),
    }

    async def answer(find: Callable[[dict[str, Any]], Any], request: Request) -> Any:
        return await work.run(request, find, _object(await _body(request, MAX_JSON)))

    async def encode(request: Request) -> Picture:
        async with work.file(request) as content:
            image = await asyncio.to_thread(read_image, content, engine.size)
            return Picture("", await work.run(request, engine.encode, image), image)

    async def read_codes(request: Request) -> np.ndarray:
        async with work.file(request) as content:
            return await asyncio.to_thread(engine.read_codes, content)

    async def describe(request: Request) -> Response:
        return JSONResponse(await work.run(request, engine.describe))

    async def progress(request: Request) -> Response:
        return JSONResponse(background.progress)

    background = Background(engine, work)
    finds: dict[str, Callable[[Request], Any]] = {
        **{name: partial(answer, find) for name, find in answers.items()},
        "encode": encode,
        "codes/read": read_codes,
    }
    return Starlette(
        routes=[
            *_page_routes(),
            Route("/api/model", describe, methods=["GET"]),
            Route("/api/progress", progress, methods=["GET"]),
            *(_route(name, find, engine.model.fingerprint.hex()) for name, find in finds.items()),
        ],
        lifespan=background.running,
        middleware=[Middleware(Guard, address=address)],
    )


def listen(address: str, port: int) -> socket.socket:
    """Listens at an address, at any free port if it is 0; what connects waits for a server."""
    try:
        family, _, _, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:  # the latter of names such as 127.0.0..1
        raise InputError(f"--address={address} is unknown here: use localhost") from error
    try:
        # An address such as :: is one of version 4, too.
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        return socket.create_server(place, family=family, dualstack_ipv6=both)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise InputError(
            f"cannot serve at {address}, port {port} ({reason}): give another --address or --port"
        ) from error


def make_server(engine: Engine, address: str) -> uvicorn.Server:
    """Returns the server, to be run with the socket of `listen` at this address.

    Its first Ctrl-C waits for what is being computed; the second one ends the process.
    """
    config = uvicorn.Config(
        make_app(engine, address),
        http=Patience,
        lifespan="on",
        ws="none",
        log_level="critical",  # answers print what goes wrong themselves
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=END_SECONDS,
    )
    return _Server(config)


class _Server(uvicorn.Server):
    """Handles Ctrl-C also while the process waits for the threads of a server that has ended."""

    _ended = False

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        if threading.current_thread() is threading.main_thread():  # else there are no signals
            signal.signal(signal.SIGINT, self._after_end)
        super().run(sockets)

    def handle_exit(self, number: int, frame: FrameType | None) -> None:
        if self.should_exit and number == signal.SIGINT:
            os._exit(128 + number)
        super().handle_exit(number, frame)

    def _after_end(self, number: int, frame: FrameType | None) -> None:
        """Called with the first Ctrl-C at the end of the server, and with the next one."""
        if self._ended:
            os._exit(128 + number)
        self._ended = True
        raise KeyboardInterrupt


def url(listener: socket.socket, address: str) -> str:
    """Returns the address of the page."""
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{listener.getsockname()[1]}/"


def _page_routes() -> list[Route]:
    """Routes of the files of the page, read once: no path of a request reaches the disk."""
    files = {f"/{file.name}": file for file in sorted(PAGE.iterdir()) if file.suffix in TYPES}
    return [
        Route(path, Response(file.read_bytes(), media_type=TYPES[file.suffix]), methods=["GET"])
        for path, file in {"/": PAGE / "index.html", **files}.items()
    ]


def _route(name: str, find: Callable[[Request], Any], model: str) -> Route:
    """A route on which expected errors become JSON with one sentence; refuses another model's page.

    Such a page was opened before this server began at the address of another one.
    """

    async def answer(request: Request) -> Response:
        try:
            if request.headers.get("x-model", model) != model:
                raise HTTPException(409, "the server has another model now: reload the page")
            result = await find(request)
            if isinstance(result, bytes):
                return Response(result, media_type="application/octet-stream")
            return JSONResponse(_plain(result))
        except HTTPException as error:
            return JSONResponse({"error": error.detail}, error.status_code, error.headers)
        except InputError as error:
            return JSONResponse({"error": str(error)}, 400)
        except ClientDisconnect:
            return Response(status_code=499)  # read by no one
        except Exception:
            traceback.print_exc()
            return JSONResponse({"error": "the server failed: its terminal says why"}, 500)

    return Route(f"/api/{name}", answer, methods=["POST"])


async def _body(request: Request, limit: int) -> bytes:
    """Reads the body of a request; refuses more than `limit` bytes before all are read.

    One that takes more than `BODY_SECONDS` is refused, too.
    """
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                content += part
                if len(content) > limit:
                    large = f"this is more than {limit / 2**20:,.0f} MB: give a smaller file"
                    raise HTTPException(413, large)
    except TimeoutError as error:
        slow = f"it took more than {BODY_SECONDS:,.0f} s to arrive: give a smaller file"
        raise HTTPException(408, slow) from error
    return bytes(content)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError("the request is no JSON object")
    return value


def _integers(body: dict[str, Any], *names: str) -> list[int]:
    for name in names:
        if type(value := body.get(name)) is not int or not 0 <= value < 2**31:
            raise InputError(f"{name} must be an integer from 0 to {2**31 - 1}")
    return [body[name] for name in names]


def _plain(value: Any) -> Any:
    """Converts results of an `Engine` to JSON values; uint8 images to base64."""
    if hasattr(value, "_asdict"):  # a NamedTuple
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if not isinstance(value, np.ndarray):
        return value
    return base64.b64encode(value.tobytes()).decode() if value.dtype == np.uint8 else value.tolist()
