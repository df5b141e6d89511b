"""Token counts of a conversation's messages and of the tools that a model is offered.

The bundled model's tokenizer needs a third of a millisecond for each new message: in a long conversation only the
messages that a memory mode may keep are counted. The others keep their estimates.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from backends import Backend
from memory.messages import Message
from memory.modes import Candidates, Mode, ModeLimits, matching_indexes
from runs.events import JSON
from runs.images import image_tokens

MANY = 1000
"""Number of messages, and parts of replies, from which on a context is built in a thread."""
_STEP = 16
_BLOCK = 2000
"""Messages that are counted at once; between two blocks other tasks run."""


async def count_history(
    backend: Backend, mode: Mode, past: Candidates, limits: ModeLimits, known: dict[str, Message]
) -> Candidates:
    """Returns the history with the backend's text and token count of every message that the mode may keep.

    `known` holds the messages that the backend has counted before, by id; new ones are added to it.
    """
    messages, first = list(past.messages), mode.first(past, limits)
    at, size, step = len(messages), 0, _STEP
    most = limits.input_budget if mode.bounded else float("inf")
    while at > first and size <= most:
        start = max(first, at - step)
        size += await count_messages(backend, messages, range(start, at), known)
        at, step = start, step * 2
    if mode.searches:
        await count_messages(backend, messages, matching_indexes(past, limits), known)
    return replace(past, messages=messages)


async def count_messages(
    backend: Backend, messages: list[Message], indexes: Sequence[int], known: dict[str, Message]
) -> int:
    """Counts the messages at these indexes in place; returns the sum of their tokens."""
    size = 0
    for at in range(0, len(indexes), _BLOCK):
        if at:
            await asyncio.sleep(0)
        size += await _count(backend, messages, indexes[at : at + _BLOCK], known)
    return size


async def _count(backend: Backend, messages: list[Message], indexes: Sequence[int], known: dict[str, Message]) -> int:
    read = (known.get(messages[index].id) for index in indexes)
    again = backend.key is not None  # its provider may count what was estimated
    fresh = [
        messages[index] for index, one in zip(indexes, read, strict=True) if one is None or (one.estimated and again)
    ]
    if fresh:
        readings = await backend.count_tokens([message.text for message in fresh])
        for message, reading in zip(fresh, readings, strict=True):
            seen = image_tokens(message.images) if backend.images is not False else 0
            tokens = reading.tokens + backend.template.per_message(message.role) + seen
            estimated = reading.estimated or seen > 0
            known[message.id] = replace(message, text=reading.text, tokens=tokens, estimated=estimated)
    size = 0
    for index in indexes:
        messages[index] = known[messages[index].id]
        size += messages[index].tokens
    return size


async def describe_tools(backend: Backend, tools: Sequence[BaseTool]) -> list[JSON]:
    """Returns the descriptions that the model gets of the tools, as {name, content, tokens}; the tokens are estimated.

    The list is empty where the model is offered no tools.
    """
    if not backend.offers_tools or not tools:
        return []
    texts = [json.dumps(convert_to_openai_tool(tool), ensure_ascii=False) for tool in tools]
    readings = await backend.bind(None).count_tokens(texts)
    return [
        {"name": tool.name, "content": text, "tokens": reading.tokens}
        for tool, text, reading in zip(tools, texts, readings, strict=True)
    ]
