"""How long a connection is held for a client that does nothing: one that sends its request's head in drops, one that
left without a word. Gradio offers no way to set this, so the server is told after it was made.
"""

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_HEAD_S = 20.0
"""For the head of a request to arrive in; uvicorn itself waits for ever."""
_PING_S, _PONG_S = 10.0, 15.0
"""Together less than the 30 s after which a vanished client must have been noticed."""


class PatientProtocol(H11Protocol):
    """HTTP that lets go of a client whose request does not come."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _expect(self) -> None:
        """Drops that come do not give more time: a head has its seconds from its first."""
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._head is None:
            self._head = self.loop.call_later(_HEAD_S, self._let_go)

    def _forget(self) -> None:
        if self._head:
            self._head.cancel()
            self._head = None

    def _let_go(self) -> None:
        self._head = None
        answering = self.cycle is not None and not self.cycle.response_complete
        if self.conn.their_state is h11.IDLE and not answering and not self.transport.is_closing():
            self.transport.close()


def bound_patience(server: Any) -> None:
    """For a running uvicorn server.

    A WebSocket that answers no ping is closed; of any other the system gives up what stays unacknowledged, heartbeats
    included. Connections inherit it from the socket that listens.
    """
    server.config.http_protocol_class = PatientProtocol
    server.config.ws_ping_interval, server.config.ws_ping_timeout = _PING_S, _PONG_S
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        for listening in (one for part in server.servers for one in part.sockets):
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_PONG_S * 1000))
