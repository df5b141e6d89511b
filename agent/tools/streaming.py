"""Streaming tools: an async generator becomes a LangChain tool whose output is shown while it runs.

LangChain's own `@tool` on an async generator returns the generator object, unrun. Here the joined yields are the
result, and the `output_listener` of the call gets them as they come, several at a time if they come fast.
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

Listener = Callable[[str], Awaitable[None]]
"""Gets a piece of a tool's output while the tool runs."""

PURE = "pure"
"""Key in the `metadata` of a tool that only computes: a preview may run it."""
_GAP_S = 0.03
"""Least seconds between two calls of the listener."""
_AHEAD = 1000
"""Yields that wait for the listener; then the tool waits."""
_ENDING_S = 0.4
"""Seconds for a tool's `finally` when its call is cancelled."""
MOST = 100_000
"""Characters of output after which a tool is ended."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def output_listener(listener: Listener) -> Iterator[None]:
    """Sends the output of streaming tools within this block to the listener."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def current_listener() -> Listener | None:
    """Returns the listener of the call in which this runs."""
    return _listener.get()


def streaming_tool(function: Callable[..., AsyncGenerator[str, None]]) -> StructuredTool:
    """Makes a tool of an async generator of texts. Its docstring is the description for the model.

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
    """Joins the chunks, and passes them on as they come. When cancelled it lets the generator's `finally` run."""
    send, receive = anyio.create_memory_object_stream[str](_AHEAD)
    reading = asyncio.create_task(_read(chunks, send))
    reading.add_done_callback(lambda done: done.cancelled() or done.exception())  # or asyncio complains
    listener, found = _listener.get(), list[str]()
    try:
        async with receive:
            async for first in receive:
                pieces = [first, *_waiting(receive)]
                found += pieces
                if listener:
                    await listener("".join(pieces))
                    await asyncio.sleep(_GAP_S)
        await reading  # raises the tool's exception
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
