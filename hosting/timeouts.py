"""Time and size limits of connections: heads and WebSocket messages that arrive in drops, clients that left without a
word. Gradio offers no way to set them, so they are set on the server after it was made.
"""

import asyncio
import json
import socket
from collections import Counter
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame, Opcode

_HEAD_S = 20.0
"""For the head of a request to arrive in; uvicorn itself waits for ever."""
_MESSAGE_S = 60.0
"""Time limit for a WebSocket message to arrive whole, in seconds, from its first byte."""
_SMALL = 200_000
"""Bytes of an unfinished WebSocket message that are not counted: more than the longest message of a visitor takes."""
_UNFINISHED = 64_000_000
"""Bytes of memory that longer unfinished WebSocket messages of all visitors take together."""
_FRAGMENT = 64
"""Bytes of memory that a fragment takes besides its data."""
_PING_S, _PONG_S = 10.0, 15.0
"""Together less than the 30 s after which a vanished client must have been noticed."""


class TimeoutHTTPProtocol(H11Protocol):
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


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """WebSockets whose messages have a time limit, and that say why a message was too large before they close. What is
    unfinished is bounded for all of them together, fragments included: a message of many has many times its memory.
    """

    unfinished: ClassVar[Counter["BoundedWebSocketProtocol"]] = Counter()
    """Bytes of long unfinished messages, by connection."""
    _deadline: asyncio.TimerHandle | None = None
    _fragments = 0
    """Bytes of memory of the unfinished message's fragments."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._count(self._fragments + len(self.conn.reader.buffer))
        unfinished = bool(self.frames) or len(self.conn.reader.buffer) > 0
        if unfinished and self._deadline is None:
            self._deadline = self.loop.call_later(_MESSAGE_S, self._give_up)
        elif not unfinished:
            self._cancel_deadline()

    async def send(self, message: Any) -> None:
        """Returns when the client has taken it, but for some kilobytes, so that the app knows what is on its way."""
        await super().send(message)
        await self.writable.wait()

    def handle_text(self, event: Frame) -> None:
        self._fragments = len(event.data) + _FRAGMENT
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        self._fragments = len(event.data) + _FRAGMENT
        super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        self._fragments += len(event.data) + _FRAGMENT
        super().handle_cont(event)

    def _count(self, size: int) -> None:
        """Counts an unfinished message, and gives it up where it grows beyond what all may take."""
        grows = size > self.unfinished[self]
        if size <= _SMALL or self.transport.is_closing():
            del self.unfinished[self]
            return
        self.unfinished[self] = size
        if grows and self.unfinished.total() > _UNFINISHED:
            self._fail(CloseCode.TRY_AGAIN_LATER, "Others are sending large messages: try again in a minute.")

    def send_receive_event_to_app(self) -> None:
        self._cancel_deadline()  # what follows is another message
        self._fragments = 0
        super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        sent = self.conn.close_sent
        if sent and sent.code == CloseCode.MESSAGE_TOO_BIG and not self.transport.is_closing():
            message = f"This is too large: at most {self.config.ws_max_size:,} bytes can be sent."
            event = {"type": "error", "code": "too_large", "message": message, "retryable": False, "content": ""}
            self.transport.write(Frame(Opcode.TEXT, json.dumps(event).encode()).serialize(mask=False))
        super().handle_parser_exception()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        del self.unfinished[self]
        super().connection_lost(exc)

    def _cancel_deadline(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        """Closes the socket, unless this side is what keeps the message from arriving."""
        self._deadline = None
        if self.read_paused:
            self._deadline = self.loop.call_later(_MESSAGE_S, self._give_up)
        elif not self.transport.is_closing():
            self._fail(CloseCode.POLICY_VIOLATION, "The message took too long to arrive.")

    def _fail(self, code: CloseCode, reason: str) -> None:
        """Closes the socket and lets go of what has arrived."""
        self.frames, self._fragments = [], 0
        del self.unfinished[self]
        self.conn.fail(code, reason)
        self.handle_parser_exception()


def set_connection_limits(server: Any, message_bytes: int) -> None:
    """Sets the limits of a running uvicorn server; a WebSocket message has at most `message_bytes` bytes.

    A WebSocket that answers no ping is closed; of any other the system gives up what stays unacknowledged, heartbeats
    included. Connections inherit it from the socket that listens.
    """
    server.config.http_protocol_class = TimeoutHTTPProtocol
    server.config.ws_protocol_class, server.config.ws_max_size = BoundedWebSocketProtocol, message_bytes
    server.config.ws_ping_interval, server.config.ws_ping_timeout = _PING_S, _PONG_S
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        for listening in (one for part in server.servers for one in part.sockets):
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_PONG_S * 1000))
