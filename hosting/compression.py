"""Compression of responses: the encodings that a client accepts, and the middleware that applies them.

Streams are never compressed: an event must not wait for the next one.
"""

import gzip
import re

import brotli
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runs.threads import Threads

ENCODINGS = "br", "gzip"
"""The encodings, the best first."""
_TEXT = re.compile(r"text/(?!event-stream)|image/svg\+xml|application/([\w.-]+\+)?(json|javascript|xml)\b")
_MIN_BYTES, _MAX_BYTES = 1000, 4_000_000
"""Sizes of responses that are compressed, in bytes."""
_LONG_BODY = 50_000
"""Bytes from which compressing would block the event loop for more than a millisecond."""
_THREADS = Threads("compression", 2)


def choose_encoding(accepted: str) -> str | None:
    """Returns the best encoding that an `Accept-Encoding` header allows; None if the body must stay as it is."""
    qualities: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, *parameters = (text.strip() for text in part.split(";"))
        qualities[name] = next((_quality(text[2:]) for text in parameters if text.startswith("q=")), 1.0)
    offered = {name: qualities.get(name, qualities.get("*", 0.0)) for name in ENCODINGS}
    best = max(ENCODINGS, key=lambda name: offered[name])
    return best if offered[best] > 0 and offered[best] >= qualities.get("identity", 0.0) else None


def _quality(text: str) -> float:
    return float(text) if re.fullmatch(r"[01](\.\d{0,3})?", text) else 0.0


def compress(body: bytes, encoding: str, *, kept: bool = False) -> bytes:
    """Compresses a body: smaller if the result is `kept`, else faster."""
    if encoding == "br":
        return bytes(brotli.compress(body, quality=10 if kept else 4))
    return gzip.compress(body, 9 if kept else 5, mtime=0)


class CompressionMiddleware:
    """ASGI middleware that compresses texts whose length is known before they are sent."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] == "HEAD":
            await self.app(scope, receive, send)
            return
        encoding = choose_encoding(Headers(scope=scope).get("accept-encoding", ""))
        start: Message | None = None
        body = bytearray()

        async def send_compressed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_compressible(message):
                MutableHeaders(scope=message).add_vary_header("Accept-Encoding")
                if encoding:
                    start = message
                    return
            elif start and encoding and message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
                if message.get("more_body"):
                    return
                message = {**message, "body": await _compressed(start, bytes(body), encoding)}
                await send(start)
                start = None
            await send(message)

        await self.app(scope, receive, send_compressed)


def _is_compressible(start: Message) -> bool:
    """Returns whether a response is a whole text of a size that is worth it."""
    headers = Headers(raw=start["headers"])
    length = headers.get("content-length", "")
    return (
        length.isdecimal()
        and _MIN_BYTES <= int(length) <= _MAX_BYTES
        and start["status"] != 206
        and "content-encoding" not in headers
        and "no-transform" not in headers.get("cache-control", "")
        and _TEXT.match(headers.get("content-type", "")) is not None
    )


async def _compressed(start: Message, body: bytes, encoding: str) -> bytes:
    """Compresses a body, and changes the headers of its response accordingly."""
    result = await _THREADS.run(compress, body, encoding) if len(body) > _LONG_BODY else compress(body, encoding)
    headers = MutableHeaders(raw=start["headers"])
    headers["Content-Encoding"], headers["Content-Length"] = encoding, str(len(result))
    if (tag := headers.get("etag", "")).startswith('"'):
        headers["ETag"] = f"W/{tag}"  # the bytes are no longer those that the tag names
    return result
