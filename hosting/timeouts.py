"""Limits on connections: slow request heads, slow or large WebSocket messages, clients that vanished.

Gradio offers no way to set these limits, so they are set on its server after it has started.
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
"""Time limit for the head of a request, in seconds; uvicorn has none."""
_MESSAGE_S = 60.0
"""Time limit for a whole WebSocket message from its first byte, in seconds."""
_SMALL = 200_000
"""Unfinished WebSocket messages up to this size, in bytes, are not counted; a visitor's longest message is shorter."""
_UNFINISHED = 64_000_000
"""The most bytes of memory for longer unfinished WebSocket messages of all visitors together."""
_FRAGMENT = 64
"""Bytes of memory of a fragment beside its data."""
_PING_S, _PONG_S = 10.0, 15.0
"""Interval and timeout of pings, in seconds: a vanished client must be noticed within 30 s."""


class TimeoutHTTPProtocol(H11Protocol):
    """HTTP protocol that closes connections whose request head does not arrive in time."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the timer of the first head."""
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Starts the timer of the next head, or cancels it when the head is complete."""
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the timer."""
        self._cancel()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        """Data does not extend the time limit of a head."""
        if self.conn.their_state is not h11.IDLE:
            self._cancel()
        elif self._head is None:
            self._head = self.loop.call_later(_HEAD_S, self._close)

    def _cancel(self) -> None:
        if self._head:
            self._head.cancel()
            self._head = None

    def _close(self) -> None:
        self._head = None
        responding = self.cycle is not None and not self.cycle.response_complete
        if self.conn.their_state is h11.IDLE and not responding and not self.transport.is_closing():
            self.transport.close()


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """WebSocket protocol with a time limit for messages, and a message for people before it closes for a large one.

    The memory of unfinished messages is bounded for all connections together. Fragments count with their overhead: a
    message of many small ones takes many times its size.
    """

    unfinished: ClassVar[Counter["BoundedWebSocketProtocol"]] = Counter()
    """Bytes of long unfinished messages, by connection."""
    _deadline: asyncio.TimerHandle | None = None
    _fragments = 0
    """Bytes of memory of the unfinished message's fragments."""

    def data_received(self, data: bytes) -> None:
        """Counts an unfinished message and starts its timer."""
        super().data_received(data)
        self._count(self._fragments + len(self.conn.reader.buffer))
        unfinished = bool(self.frames) or len(self.conn.reader.buffer) > 0
        if unfinished and self._deadline is None:
            self._deadline = self.loop.call_later(_MESSAGE_S, self._time_out)
        elif not unfinished:
            self._cancel_deadline()

    async def send(self, message: Any) -> None:
        """Returns when the client has taken all but some kilobytes, so that the app knows what is in flight."""
        await super().send(message)
        await self.writable.wait()

    def handle_text(self, event: Frame) -> None:
        """Counts a first fragment of text."""
        self._fragments = len(event.data) + _FRAGMENT
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """Counts a first fragment of bytes."""
        self._fragments = len(event.data) + _FRAGMENT
        super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        """Counts a further fragment."""
        self._fragments += len(event.data) + _FRAGMENT
        super().handle_cont(event)

    def _count(self, size: int) -> None:
        """Counts an unfinished message, and closes the connection if it grows beyond the limit for all."""
        grows = size > self.unfinished[self]
        if size <= _SMALL or self.transport.is_closing():
            del self.unfinished[self]
            return
        self.unfinished[self] = size
        if grows and self.unfinished.total() > _UNFINISHED:
            self._fail(CloseCode.TRY_AGAIN_LATER, "Others are sending large messages: try again in a minute.")

    def send_receive_event_to_app(self) -> None:
        """Ends the time limit of a message that is complete."""
        self._cancel_deadline()
        self._fragments = 0
        super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        """Sends an `error` event before a connection is closed for a large message."""
        sent = self.conn.close_sent
        if sent and sent.code == CloseCode.MESSAGE_TOO_BIG and not self.transport.is_closing():
            message = f"This is too large: at most {self.config.ws_max_size:,} bytes can be sent."
            event = {"type": "error", "code": "too_large", "message": message, "retryable": False, "content": ""}
            self.transport.write(Frame(Opcode.TEXT, json.dumps(event).encode()).serialize(mask=False))
        super().handle_parser_exception()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the timer and drops the unfinished message."""
        self._cancel_deadline()
        del self.unfinished[self]
        super().connection_lost(exc)

    def _cancel_deadline(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    def _time_out(self) -> None:
        """Closes the connection, unless this side has paused reading."""
        self._deadline = None
        if self.read_paused:
            self._deadline = self.loop.call_later(_MESSAGE_S, self._time_out)
        elif not self.transport.is_closing():
            self._fail(CloseCode.POLICY_VIOLATION, "The message took too long to arrive.")

    def _fail(self, code: CloseCode, reason: str) -> None:
        """Closes the connection and drops what has arrived."""
        self.frames, self._fragments = [], 0
        del self.unfinished[self]
        self.conn.fail(code, reason)
        self.handle_parser_exception()


def set_connection_limits(server: Any, message_bytes: int) -> None:
    """Sets the limits of a running uvicorn server; `message_bytes` is the most bytes of a WebSocket message.

    A WebSocket that does not answer a ping is closed. The system closes any other connection whose data, heartbeats
    included, stays unacknowledged; connections inherit this from the listening socket.
    """
    server.config.http_protocol_class = TimeoutHTTPProtocol
    server.config.ws_protocol_class, server.config.ws_max_size = BoundedWebSocketProtocol, message_bytes
    server.config.ws_ping_interval, server.config.ws_ping_timeout = _PING_S, _PONG_S
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        for listener in (sock for each in server.servers for sock in each.sockets):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_PONG_S * 1000))
