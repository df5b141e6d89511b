"""Events on their way to a reader, in pieces that are small in number and in bytes: others get their turn between them,
and of a long event a slow reader holds a piece, not a copy.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable

_EVENTS = 500
"""Events in one piece: encoding one that nobody has followed takes 20 µs."""
_CHARACTERS = 64_000
"""Characters in one piece."""

Parts = tuple[str, str, str]
"""What stands before an event's JSON, the JSON, and what stands behind it."""


async def in_chunks(events: Iterable[Parts]) -> AsyncGenerator[bytes, None]:
    """All of the events, in order."""
    waiting: list[str] = []
    number = size = 0
    for parts in events:
        number += 1
        for part in parts:
            for start in range(0, len(part), _CHARACTERS):
                text = part[start : start + _CHARACTERS]
                if waiting and (size + len(text) > _CHARACTERS or number > _EVENTS):
                    yield _encoded(waiting)
                    waiting, number, size = [], 1, 0
                    await asyncio.sleep(0)
                waiting.append(text)
                size += len(text)
    if waiting:
        yield _encoded(waiting)


def _encoded(texts: list[str]) -> bytes:
    return "".join(texts).encode("utf-8", "replace")
