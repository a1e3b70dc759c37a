"""Refuses requests that do not come from the page, and sets the headers that confine it.

A page of another site can make a browser send requests to localhost. The name of such a site may
even be resolved to 127.0.0.1 (DNS rebinding), so that the browser takes its page for one of ours;
the `Host` header then still holds that name.
"""

import ipaddress
import re
import socket

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Nothing is loaded from elsewhere, nothing inline runs, and no other page may frame this one.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware around the server that listens at `address`, which the page may be at."""

    def __init__(self, app: ASGIApp, address: str) -> None:
        self._app = app
        # An address that is a number needs no name server, so that it cannot be rebound.
        self._names = {"localhost", address.lower(), socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it with status 403."""

        async def send_confined(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["type"] == "lifespan":  # no request
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if reason := self._reason(headers, scope["path"], scope["method"]):
            refusal = JSONResponse({"error": f"refused: {reason}"}, 403)
            await refusal(scope, receive, send_confined)
        else:
            await self._app(scope, receive, send_confined)

    def _reason(self, headers: Headers, path: str, method: str) -> str:
        """Why a request is refused; empty if it is not."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            return "the address is not that of this server: use localhost, its number or host name"
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return "the request comes from a page of another site"
        # A link on another site may open the page; all else it must leave alone.
        opens = path == "/" and method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not opens:
            return "the request comes from a page of another site"
        return ""

    def _is_ours(self, host: str) -> bool:
        parts = re.fullmatch(r"(?:\[([\da-f.:]+)\]|([^][:@/]+))(?::\d+)?", host.lower())
        if not parts:
            return False
        name = parts[1] or parts[2]
        try:
            return name in self._names or bool(ipaddress.ip_address(name))
        except ValueError:
            return False
