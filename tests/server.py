"""An HTTP server on 127.0.0.1 for tests, down to the bytes (RFC 9112): it can drip, hang, cut and reset."""

import asyncio
import json
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.tcp import TcpServer
from tests.tcp import reset as reset_connection

NO_HEADERS: Mapping[str, Any] = {}


def _parsed(body: bytes) -> Any:
    """JSON as what it says, JSON lines as their text."""
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode()


@dataclass(frozen=True)
class Request:
    """What a client sent; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    at: float = field(default_factory=time.monotonic)


class Wire:
    """One answer on its way to the client."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._chunked = False
        self.keep = True
        """Whether the connection serves another request afterwards."""

    async def head(self, status: int, headers: Mapping[str, Any], keep: bool = True) -> None:
        """Without a Content-Length the body is chunked, or ends with the connection if that is not kept."""
        self.keep = keep
        self._chunked = keep and "Content-Length" not in headers
        framing = {"Transfer-Encoding": "chunked"} if self._chunked else {}
        lines = {**headers, **framing, "Connection": "keep-alive" if keep else "close"}
        received = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._writer.write(f"HTTP/1.1 {status} Test\r\n{received}\r\n".encode())
        await self._writer.drain()

    async def send(self, data: bytes, pause: float = 0, size: int = 0) -> None:
        """In parts of `size` bytes, if that is set."""
        size = size or len(data)
        for at in range(0, len(data), size or 1):
            await asyncio.sleep(pause)
            part = data[at : at + size]
            self._writer.write(b"%x\r\n%b\r\n" % (len(part), part) if self._chunked else part)
            await self._writer.drain()

    async def end(self) -> None:
        if self._chunked:
            self._writer.write(b"0\r\n\r\n")
            await self._writer.drain()

    async def whole(self, body: str, status: int, kind: str, headers: Mapping[str, Any] = NO_HEADERS) -> None:
        data = body.encode()
        await self.head(status, {"Content-Type": kind, "Content-Length": len(data), **headers})
        await self.send(data)

    async def json(self, body: Any, status: int = 200, headers: Mapping[str, Any] = NO_HEADERS) -> None:
        await self.whole(json.dumps(body), status, "application/json", headers)

    def cut(self, reset: bool = False) -> None:
        self.keep = False
        if reset:
            reset_connection(self._writer)


class Server(TcpServer):
    """An HTTP/1.1 server; hung requests do not hold up its end."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self.open_streams = 0
        """The number of answers that are under way."""
        self.disconnects: list[float] = []
        """The times (`time.monotonic()`) at which a client left before its answer was whole."""

    @abstractmethod
    async def respond(self, request: Request, wire: Wire) -> None: ...

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(writer)
        ahead = asyncio.create_task(reader.read(1))  # the next request's first byte, or the client's end
        try:
            while wire.keep and (first := await ahead):
                request = await self._request(first, reader)
                ahead = asyncio.create_task(reader.read(1))
                self.requests.append(request)
                await self._answer(request, wire, ahead)
        finally:
            ahead.cancel()

    async def _request(self, first: bytes, reader: asyncio.StreamReader) -> Request:
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        start, *lines = head.strip().split("\r\n")
        method, path, _ = start.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Request(method, path, headers, _parsed(body))

    async def _answer(self, request: Request, wire: Wire, ahead: asyncio.Task[bytes]) -> None:
        answering = asyncio.create_task(self.respond(request, wire))
        self.open_streams += 1
        try:
            await asyncio.wait({answering, ahead}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done() and not await ahead:
                raise ConnectionAbortedError
            await answering
        except ConnectionError:
            self.disconnects.append(time.monotonic())
            raise
        finally:
            self.open_streams -= 1
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
