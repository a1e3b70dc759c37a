"""Ends connections on which no request comes."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # for the head of a request; at most twice that


class PatientProtocol(H11Protocol):
    """uvicorn's connections, which by themselves wait for ever for the rest of a request's head."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to watch the connection."""
        super().connection_made(transport)
        self._watch(None)

    def _watch(self, before: tuple[object, bool] | None) -> None:
        """Closes the connection if no request has come since the last look."""
        state = (self.cycle, self.conn.their_state is h11.IDLE)
        if self.transport.is_closing():
            return
        if state[1] and state == before:
            self.transport.close()
        else:
            self.loop.call_later(HEAD_SECONDS, self._watch, state)
