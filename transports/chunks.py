"""Splits long responses into chunks, small in bytes and in events.

Other requests are served between chunks, and a slow reader of a long event holds a chunk of it instead of a copy.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable

_EVENTS = 500
"""The most events in a chunk: encoding an event that nobody has followed takes 20 µs."""
_CHARACTERS = 64_000
"""The most characters in a chunk."""

FramedText = Iterable[str]
"""The texts of an event: its JSON, whole or in pieces, between its prefix and its suffix."""


_MOST_TURNS = 16
"""The most rounds of the event loop that a response waits between two chunks."""


class _Making:
    """The number of responses that are being made now, without those that wait for their reader."""

    number = 0


async def in_chunks(texts: Iterable[FramedText]) -> AsyncGenerator[bytes, None]:
    """Yields all texts in order, encoded.

    Responses that are made at the same time take turns: about one chunk of all of them in each round of the event loop,
    since a long one takes milliseconds.
    """
    chunk: list[str] = []
    number = size = 0
    _Making.number += 1
    try:
        for framed in texts:
            number += 1
            for text in framed:
                for start in range(0, len(text), _CHARACTERS):
                    part = text[start : start + _CHARACTERS]
                    if chunk and (size + len(part) > _CHARACTERS or number > _EVENTS):
                        _Making.number -= 1
                        try:
                            yield _encode(chunk)
                        finally:
                            _Making.number += 1
                        chunk, number, size = [], 1, 0
                        for _ in range(min(_Making.number, _MOST_TURNS)):
                            await asyncio.sleep(0)
                    chunk.append(part)
                    size += len(part)
        if chunk:
            yield _encode(chunk)
    finally:
        _Making.number -= 1


def _encode(texts: list[str]) -> bytes:
    return "".join(texts).encode("utf-8", "replace")
