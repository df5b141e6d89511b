"""The messages to and from a server that has an address, by the package's own transport with bounds around it."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client
from pydantic import SecretStr

from agent.mcp.faults import Faults
from agent.mcp.process import LONGEST_LINE

_STREAM = 16_000_000
"""Bytes of a response that is a stream of messages."""
_CONNECT_S, _READ_S = 10.0, 600.0


@asynccontextmanager
async def http_streams(url: str, headers: Mapping[str, SecretStr], faults: Faults) -> AsyncGenerator[Any, None]:
    """Yields the streams of a connection. `faults` gets what the server does wrong."""

    async def bound(response: httpx2.Response) -> None:
        if response.status_code >= 400:
            faults.note_status(response.status_code)
        if response.headers.get("content-encoding", "identity") != "identity":
            faults.add("it sent a packed response, though none was wanted")
            raise httpx2.DecodingError("a packed response")
        streams = response.headers.get("content-type", "").startswith("text/event-stream")
        response.stream = _Bounded(response.stream, _STREAM if streams else LONGEST_LINE, faults)

    values = {name: secret.get_secret_value() for name, secret in headers.items()}
    client = httpx2.AsyncClient(
        headers={**values, "Accept-Encoding": "identity"},
        timeout=httpx2.Timeout(_CONNECT_S, read=_READ_S),
        event_hooks={"response": [bound]},
    )
    async with client, streamable_http_client(url, http_client=client, max_sse_event_size=LONGEST_LINE) as streams:
        yield streams


class _Bounded(httpx2.AsyncByteStream):
    """The body of a response; it ends with an error when it grows too large."""

    def __init__(self, stream: Any, most: int, faults: Faults) -> None:
        self._stream, self._most, self._faults = stream, most, faults

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > self._most:
                self._faults.add(f"it sent a response of more than {self._most // 1_000_000} MB")
                raise httpx2.ReadError("the response is too large")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
