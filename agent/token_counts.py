"""How many tokens the messages of a history have: counted where a memory mode may keep them, else left a guess.

To count takes a model's own tokenizer a third of a millisecond for each message that it has not read before: for a long
conversation that would be seconds, and most of it is left out.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from backends import Backend, Key
from memory.messages import Message
from memory.modes import Candidates, Mode, ModeLimits, matching_positions

_STEP = 16
_BLOCK = 2000
"""Messages that are counted at once: others get their turn in between."""


async def count_history(
    backend: Backend, mode: Mode, past: Candidates, limits: ModeLimits, known: dict[str, Message], key: Key | None
) -> Candidates:
    """The history with the tokens, and the texts, of all that the mode may keep as the backend reads them.

    `known` is what it has read before, by id, and takes in what it reads now.
    """
    messages, first = list(past.messages), mode.first(past, limits)
    at, size, step = len(messages), 0, _STEP
    most = limits.input_budget if mode.bounded else float("inf")
    while at > first and size <= most:
        start = max(first, at - step)
        size += await count_messages(backend, messages, range(start, at), known, key)
        at, step = start, step * 2
    if mode.searches:
        await count_messages(backend, messages, matching_positions(past, limits), known, key)
    return replace(past, messages=messages)


async def count_messages(
    backend: Backend, messages: list[Message], places: Sequence[int], known: dict[str, Message], key: Key | None
) -> int:
    """Counts the messages at these places, in place; returns their tokens together."""
    size = 0
    for at in range(0, len(places), _BLOCK):
        if at:
            await asyncio.sleep(0)
        size += await _count(backend, messages, places[at : at + _BLOCK], known, key)
    return size


async def _count(
    backend: Backend, messages: list[Message], places: Sequence[int], known: dict[str, Message], key: Key | None
) -> int:
    read = (known.get(messages[place].id) for place in places)
    fresh = [messages[place] for place, one in zip(places, read, strict=True) if one is None or (one.estimated and key)]
    if fresh:
        readings = await backend.count_tokens([message.text for message in fresh], key)
        for message, reading in zip(fresh, readings, strict=True):
            tokens = reading.tokens + backend.template.per_message(message.role)
            known[message.id] = replace(message, text=reading.text, tokens=tokens, estimated=reading.estimated)
    size = 0
    for place in places:
        messages[place] = known[messages[place].id]
        size += messages[place].tokens
    return size
