"""A forward proxy on 127.0.0.1 that speaks HTTP (RFC 9112 section 3.2.2, CONNECT) and SOCKS 5 (RFC 1928) on one port.

It alone knows the addresses behind its `names`, so that a request for one of them can only have come through it.
"""

import asyncio
import struct
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from tests.tcp import TcpServer, relay


class Forwarder(TcpServer):
    """A forward proxy; `asked` are the targets, as ("http", "name:80")."""

    def __init__(self, names: Mapping[str, int]) -> None:
        super().__init__()
        self.names, self.asked = names, list[tuple[str, str]]()

    def asked_for(self, host: str, protocol: str) -> bool:
        return any(kind == protocol and target.rpartition(":")[0] == host for kind, target in self.asked)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        with suppress(KeyError):
            await (self._socks if first == b"\x05" else self._http)(first, reader, writer)

    async def _socks(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly((await reader.readexactly(1))[0])
        writer.write(b"\x05\x00")
        kind = (await reader.readexactly(4))[3]
        length = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
        name = await reader.readexactly(length)
        host = name.decode() if kind == 3 else f"address {name.hex()}"
        (port,) = struct.unpack("!H", await reader.readexactly(2))
        self.asked.append(("socks", f"{host}:{port}"))
        there, back = await asyncio.open_connection("127.0.0.1", self.names[host])
        writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        await _join(reader, writer, there, back)

    async def _http(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split(" ", 2)
        where = urlsplit(f"//{target}" if method == "CONNECT" else target)
        self.asked.append(("http", f"{where.hostname}:{where.port or 80}"))
        there, back = await asyncio.open_connection("127.0.0.1", self.names[where.hostname or ""])
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        else:  # one request for each connection: the client's next one may be for another host
            path = f"{where.path or '/'}{'?' if where.query else ''}{where.query}"
            back.write(head.replace(target, path, 1).encode("latin-1"))
            sending = asyncio.create_task(relay(reader, back))
            answer = await there.readuntil(b"\r\n\r\n")
            sending.cancel()
            writer.write(answer.replace(b"Connection: keep-alive", b"Connection: close"))
        await _join(reader, writer, there, back)


async def _join(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, there: asyncio.StreamReader, back: asyncio.StreamWriter
) -> None:
    """Passes everything on in both directions, until one side ends."""
    both = {asyncio.create_task(relay(reader, back)), asyncio.create_task(relay(there, writer))}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        back.close()
