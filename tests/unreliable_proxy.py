"""A bad line: proxies on 127.0.0.1 that cut, delay, duplicate and split what a server sends, at random by a seed.

What is duplicated is whole events, as a proxy that repeats a read would; half of one twice would be a lie that no
client could tell. Nothing is cut before a message's first answer has come through: what nobody has heard of nobody can
take up again.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

_SHORT_S = 0.004
_HEARD_S = 0.02
"""Before a reset, which takes with it what the client has not read yet."""


@asynccontextmanager
async def unreliable_http_proxy(upstream: str, random: Random, cuts: int) -> AsyncIterator[str]:
    """The address of a proxy for one client's HTTP requests; `cuts` is the most that it cuts."""
    left = cuts

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            method, path, _ = first.split(" ")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            kept = {k: v for k, v in headers.items() if k in ("content-type", "cookie", "last-event-id")}
            if method == "GET" and left and random.random() < 0.2:
                left -= 1
                if refusal := random.choice(("", "429 Slow", "502 Lost", "503 Down", "504 Late")):
                    received = "Content-Length: 0\r\nRetry-After: 0.01\r\nConnection: close"
                    writer.write(f"HTTP/1.1 {refusal}\r\n{received}\r\n\r\n".encode())
                return
            async with httpx.AsyncClient(timeout=20) as client:
                async with client.stream(method, upstream.rstrip("/") + path, headers=kept, content=body) as got:
                    shown = ("content-type", "x-run-id", "x-conversation-id")
                    received = "".join(f"{name}: {got.headers[name]}\r\n" for name in shown if name in got.headers)
                    writer.write(
                        f"HTTP/1.1 {got.status_code} X\r\n{received}Transfer-Encoding: chunked\r\n\r\n".encode()
                    )
                    await writer.drain()
                    if not await _pass_on(got, writer, random, cut=left > 0):
                        left -= 1
                        return
                    writer.write(b"0\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError, httpx.HTTPError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def _pass_on(got: httpx.Response, writer: asyncio.StreamWriter, random: Random, *, cut: bool) -> bool:
    """The body, badly; False if it was cut."""
    after = random.randrange(1, 6_000) if cut else None
    held, passed = b"", [b""]
    async for data in got.aiter_bytes():
        *whole, held = (held + data).split(b"\n\n")
        for event in whole:
            passed.append(event + b"\n\n")
            received = passed[-1]
            if random.random() < 0.1:
                received += b"".join(passed[-random.randrange(1, 6) :])
            while received:
                size = random.randrange(1, 400)
                piece, received = received[:size], received[size:]
                if after is not None and (after := after - len(piece)) <= 0:
                    if random.random() < 0.5:
                        writer.write(b"%x\r\n%s" % (len(piece) + 5, piece))  # in the middle of a chunk
                    elif random.random() < 0.5:
                        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(piece), piece))  # as if that were all
                    else:
                        await asyncio.sleep(_HEARD_S)
                        writer.transport.abort()
                    return False
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                if random.random() < 0.1:
                    await asyncio.sleep(random.random() * _SHORT_S)
                await writer.drain()
    return True


@asynccontextmanager
async def unreliable_socket_proxy(upstream: str, random: Random, cuts: int) -> AsyncIterator[str]:
    """The same for a client's WebSockets."""
    left = cuts
    url = upstream.replace("http://", "ws://")

    async def pass_on(client: ServerConnection) -> None:
        nonlocal left
        assert client.request
        async with connect(url.rstrip("/") + client.request.path, max_size=None, close_timeout=0.1) as server:

            async def up() -> None:
                async for text in client:
                    await server.send(text)
                await server.close()

            sending = asyncio.create_task(up())
            after = random.randrange(1, 150) if left else None
            passed: list[Any] = []
            try:
                async for text in server:
                    event = json.loads(text)
                    passed.append(text)
                    await client.send(text)
                    if "seq" in event and random.random() < 0.1:
                        for again in passed[-random.randrange(1, 6) :]:
                            await client.send(again)
                    if random.random() < 0.1:
                        await asyncio.sleep(random.random() * _SHORT_S)
                    if after is not None and "seq" in event and (after := after - 1) <= 0:
                        left -= 1
                        if random.random() < 0.5:
                            await asyncio.sleep(_HEARD_S)
                            client.transport.abort()
                        return
            finally:
                sending.cancel()
                with suppress(asyncio.CancelledError, ConnectionClosed):
                    await sending

    async with serve(pass_on, "127.0.0.1", 0, close_timeout=0.1) as server:
        yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
