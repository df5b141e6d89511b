"""HTTP over bare connections, for clients that share the machine with the server, and for connections that break."""

import asyncio
import json
import socket
import struct
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Response(NamedTuple):
    """A response whose body is still to be read."""

    status: int
    headers: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def send_request(
    url: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, buffer: int = 2**16
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Sends a request with a JSON body on a connection of its own; nothing is read."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=buffer)
    content = json.dumps(body).encode() if body else b""
    fields = {"Host": parts.netloc, "Content-Type": "application/json", "Content-Length": f"{len(content)}"}
    head = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in {**fields, **(headers or {})}.items())]
    writer.write("\r\n".join([*head, "Connection: close", "", ""]).encode() + content)
    return reader, writer


async def request(
    url: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> Response:
    """Sends a request and reads the head of the response."""
    reader, writer = await send_request(url, method, path, body, headers)
    status, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    parsed = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return Response(int(status.split()[1]), parsed, reader, writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Closes a connection with a reset, as a broken network does."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
