"""Connections of the server: requests that never end, and answers that no one reads."""

import asyncio
import itertools
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20.0  # for a request to begin and its head to arrive
WRITE_SECONDS = 60.0  # for what is sent to be read
_NUMBERS = itertools.count()
MOST_CONNECTIONS = 64  # of a client; a browser has some six


class Patience(H11Protocol):
    """uvicorn's protocol with deadlines, and with a limit of connections of a client.

    Beyond the limit, the oldest connection without a request makes room; if all have one, the new
    connection is closed.
    """

    _deadline: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Called by asyncio; likewise those below."""
        super().connection_made(transport)
        self._number = next(_NUMBERS)
        every: list[Any] = [*self.connections]
        own = [other for other in every if _address(other) == _address(self)]
        if len(own) > MOST_CONNECTIONS:
            waiting = (other for other in own if other._waits())  # among them this one
            min(waiting, key=lambda other: other._number).transport.abort()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._deadline, self._writing):
            if timer:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._writing:
            self._writing.cancel()

    def _waits(self) -> bool:
        """Whether there is no request that is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        """Begins to wait for a head, which goes on whatever arrives, or ends to."""
        if not self._waits():
            if self._deadline:
                self._deadline.cancel()
            self._deadline = None
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)


def _address(connection: Any) -> str:
    return connection.client[0] if connection.client else ""
