"""Tools that show their work: an async generator becomes a LangChain tool whose yields are told while it runs.

LangChain's own `@tool` on an async generator returns the generator object, unrun. Here the joined yields are the
result, and each of them also goes to the `output_listener` of the call, many at a time where they come fast.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from langchain_core.tools import StructuredTool
from langchain_core.tools.base import create_schema_from_function

Tell = Callable[[str], Awaitable[None]]
"""Is told a piece of a tool's output while the tool runs."""

PURE = "pure"
"""In the `metadata` of a tool that does nothing but compute: it may be run to see what it would give."""
_GAP_S = 0.03
"""Between two tellings: what is yielded meanwhile is told together."""
_AHEAD = 1000
"""Yields that wait to be told; a tool that is faster is made to wait."""
_ENDING_S = 0.4
"""For a tool's `finally` when its call is cancelled."""
MOST = 100_000
"""Characters of output after which a tool is ended."""

_listener: ContextVar[Tell | None] = ContextVar("listener", default=None)


@contextmanager
def output_listener(listener: Tell) -> Iterator[None]:
    """What streaming tools yield within this block goes to the listener."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def streaming_tool(function: Callable[..., AsyncGenerator[str, None]]) -> StructuredTool:
    """Makes a tool of an async generator of texts. Its docstring tells the model what it is for.

    Raises TypeError for anything else. A tool of more than `MOST` characters is ended, and its result says so.
    """
    if not inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__name__}: a streaming tool is an async generator: `async def` with `yield`")

    async def run(**arguments: Any) -> str:
        return await _collect(function(**arguments))

    return StructuredTool.from_function(
        coroutine=run,
        name=function.__name__,
        description=inspect.getdoc(function) or function.__name__,
        args_schema=create_schema_from_function(function.__name__, function),
    )


async def _collect(chunks: AsyncGenerator[str, None]) -> str:
    """The joined chunks, told as they come; a cancel lets the generator's own `finally` run first."""
    send, receive = anyio.create_memory_object_stream[str](_AHEAD)
    reading = asyncio.create_task(_read(chunks, send))
    reading.add_done_callback(lambda done: done.cancelled() or done.exception())  # or asyncio complains
    tell, found = _listener.get(), list[str]()
    try:
        async with receive:
            async for first in receive:
                pieces = [first, *_waiting(receive)]
                found += pieces
                if tell:
                    await tell("".join(pieces))
                    await asyncio.sleep(_GAP_S)
        await reading  # raises what the tool has raised
    finally:
        if not reading.done():
            reading.cancel()
            await asyncio.wait({reading}, timeout=_ENDING_S)
    return "".join(found)


async def _read(chunks: AsyncGenerator[str, None], send: MemoryObjectSendStream[str]) -> None:
    size = 0
    async with send, aclosing(chunks):
        async for chunk in chunks:
            text = str(chunk)
            size += len(text)
            if size > MOST:
                kept = text[: MOST - (size - len(text))]
                await send.send(f"{kept}\n[ended: more than {MOST:,} characters]")
                return
            await send.send(text)


def _waiting(receive: MemoryObjectReceiveStream[str]) -> list[str]:
    pieces = list[str]()
    with suppress(anyio.WouldBlock, anyio.EndOfStream):
        while True:
            pieces.append(receive.receive_nowait())
    return pieces
