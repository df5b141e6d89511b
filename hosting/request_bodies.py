"""Reads whole request bodies within limits on size, time and memory, before any route sees them."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack

from starlette.types import Receive

from hosting.error_responses import RETRY_S
from runs.errors import ChatError

_TIMEOUT_S, _BYTES_PER_S = 60.0, 200_000
"""Time limit of a body, in seconds; a larger body has the time that it takes at this rate."""
_MAX_LARGE = 8
"""The most large bodies in memory at once."""
_SMALL_BYTES = 100_000
"""Bodies up to this size are not counted: `connections_per_address` bounds their number."""
_BYTES_PER_ADDRESS = 64_000_000
"""The most bytes of longer bodies in memory for one address, or twice the largest body that is allowed."""


class RequestBodies:
    """Reads bodies and counts those in memory.

    `max_bytes` bounds a body; `upload_bytes` bounds a POST to one of its paths instead. A body longer than `max_bytes`
    is a large one.
    """

    def __init__(self, max_bytes: int, upload_bytes: Mapping[str, int]) -> None:
        self._max_bytes, self._upload_bytes = max_bytes, upload_bytes
        self._large = 0
        self._bytes = Counter[str]()
        """Bytes by address."""
        self._bytes_per_address = max(_BYTES_PER_ADDRESS, 2 * max(max_bytes, *upload_bytes.values(), 0))

    async def read(self, method: str, path: str, receive: Receive, address: str, counted: ExitStack) -> bytes | None:
        """Returns the body, or None if the client has disconnected. The body is counted until `counted` closes.

        Raises ChatError `too_large`, `timeout`, or `busy` where too many bytes or large bodies are in memory.
        """
        limit = self._upload_bytes.get(path.rstrip("/"), self._max_bytes) if method == "POST" else self._max_bytes
        try:
            async with asyncio.timeout(max(_TIMEOUT_S, limit / _BYTES_PER_S)):
                return await self._read(receive, limit, address, counted)
        except TimeoutError:
            raise ChatError("timeout", "The request took too long to arrive.") from None

    async def _read(self, receive: Receive, limit: int, address: str, counted: ExitStack) -> bytes | None:
        chunks, size, large, reserved = list[bytes](), 0, False, 0

        def release() -> None:
            self._bytes[address] -= reserved
            if not self._bytes[address]:
                del self._bytes[address]

        counted.callback(release)
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            chunks.append(bytes(message.get("body", b"")))
            size += len(chunks[-1])
            if size > limit:
                raise ChatError("too_large", f"This is too large: at most {limit:,} bytes can be sent.")
            if size > self._max_bytes and not large:
                self._count_large(counted)
                large = True
            if size > _SMALL_BYTES:
                if self._bytes[address] + size - reserved > self._bytes_per_address:
                    error = "Your address is sending too much at once: wait until some of it has arrived."
                    raise ChatError("busy", error, retryable=True, retry_after=5)
                self._bytes[address] += size - reserved
                reserved = size
            if not message.get("more_body"):
                return b"".join(chunks)

    def _count_large(self, counted: ExitStack) -> None:
        if self._large >= _MAX_LARGE:
            error = "Others are sending large files: try again in a minute."
            raise ChatError("busy", error, retryable=True, retry_after=RETRY_S)
        self._large += 1

        def release() -> None:
            self._large -= 1

        counted.callback(release)
