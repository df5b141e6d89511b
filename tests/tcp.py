"""TCP servers on 127.0.0.1 for tests, each on a thread of its own; a proxy between a client and the app is one."""

import asyncio
import socket
import struct
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Self

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_RESET = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which a close resets the connection."""


class TcpServer(ABC):
    """A server that runs from `with` to the end of the block, which does not wait for open connections."""

    def __init__(self) -> None:
        self.port = 0
        self._started = threading.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name=type(self).__name__, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection, which is closed afterwards. A connection error ends it silently."""

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        listening = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = listening.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        listening.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._handle(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, EOFError):
                await self.handle(reader, writer)
        finally:
            writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Closes a connection as a line that dies does."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


async def relay(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Passes all data on until the source ends."""
    while data := await source.read(65536):
        target.write(data)
        await target.drain()


class TcpProxy(TcpServer):
    """A proxy of the app's port whose connections can be cut, or go dead without being closed.

    `requests` and `answers` hold the heads of requests for /stream and the first lines of the answers to them.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self.dropped = 0
        """The connections that were cut or went dead."""
        self.requests: list[str] = []
        self.answers: list[bytes] = []
        self._upstream_port, self._refuses = port, False
        self._open: set[asyncio.StreamWriter] = set()
        self._dead: set[asyncio.StreamWriter] = set()

    def cut(self, *, refuse: bool = False) -> None:
        """Resets the open connections, and with `refuse` new ones too until `mend`."""
        self._refuses = refuse
        self._loop.call_soon_threadsafe(self._reset_all)

    def mend(self) -> None:
        self._refuses = False

    def freeze(self) -> None:
        """Passes nothing on over the open connections any more. New ones work."""
        self._loop.call_soon_threadsafe(self._freeze)

    def _reset_all(self) -> None:
        self.dropped += len(self._open)
        for writer in self._open:
            reset(writer)

    def _freeze(self) -> None:
        self.dropped += len(self._open)
        self._dead |= self._open

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            reset(writer)
            return
        upstream, up = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        self._open |= {writer, up}
        try:
            await asyncio.gather(self._pump(reader, up), self._pump(upstream, writer))
        finally:
            self._open -= {writer, up}
            up.close()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if data.startswith(b"GET /stream"):
                self.requests.append(data.decode())
            elif data.startswith(b"HTTP/1.1 204") or b"text/event-stream" in data[:2000].lower():
                self.answers.append(data.split(b"\r\n")[0])
            if target not in self._dead:
                target.write(data)
                await target.drain()
        if target not in self._dead:
            target.close()
