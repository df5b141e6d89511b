"""Splits long responses into chunks, small in bytes and in events.

Other requests are served between chunks, and a slow reader of a long event holds a chunk of it instead of a copy.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable

_EVENTS = 500
"""The most events in a chunk: encoding an event that nobody has followed takes 20 µs."""
_CHARACTERS = 64_000
"""The most characters in a chunk."""

FramedText = tuple[str, str, str]
"""An event's JSON, or another text, between its prefix and its suffix."""


async def in_chunks(texts: Iterable[FramedText]) -> AsyncGenerator[bytes, None]:
    """Yields all texts in order, encoded."""
    chunk: list[str] = []
    number = size = 0
    for framed in texts:
        number += 1
        for text in framed:
            for start in range(0, len(text), _CHARACTERS):
                part = text[start : start + _CHARACTERS]
                if chunk and (size + len(part) > _CHARACTERS or number > _EVENTS):
                    yield _encode(chunk)
                    chunk, number, size = [], 1, 0
                    await asyncio.sleep(0)
                chunk.append(part)
                size += len(part)
    if chunk:
        yield _encode(chunk)


def _encode(texts: list[str]) -> bytes:
    return "".join(texts).encode("utf-8", "replace")
