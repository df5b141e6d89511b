"""The messages to and from a server that is a program, as the streams that the package `mcp` expects.

Its own transport would read a line of any length, and messages as fast as they come.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from agent.mcp.faults import Faults
from agent.mcp.process import LONGEST_LINE, ServerProcess

logger = logging.getLogger(__name__)

_NO_MESSAGES = 100
"""Lines of a server's output that are no messages; it is then ended."""
_AT_ONCE, _PER_S = 200, 500
"""Messages of a server that are read at once, and in a second. A faster one waits, as its output is not read."""

_BYTES = 20_000
"""Bytes of a message for which it counts as one more."""

Incoming = MemoryObjectSendStream[SessionMessage | Exception]
Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


@asynccontextmanager
async def stdio_streams(process: ServerProcess, faults: Faults) -> AsyncGenerator[Streams, None]:
    """Yields the streams of a running server, and ends it at last. `faults` gets what the server does wrong."""
    incoming, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, sent = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_read, process, incoming, faults)
            group.start_soon(_write, process, sent, faults)
            try:
                yield received, outgoing
            finally:
                group.cancel_scope.cancel()
    finally:
        for stream in (incoming, received, outgoing, sent):
            stream.close()
        with anyio.CancelScope(shield=True):
            await process.end()


async def _read(process: ServerProcess, incoming: Incoming, faults: Faults) -> None:
    """Passes the messages on until the server ends or does something wrong; the session then ends."""
    wrong, since, count = 0, asyncio.get_running_loop().time(), 0
    async with incoming:
        while True:
            try:
                line = await process.output.readuntil(b"\n")
            except asyncio.LimitOverrunError:
                return faults.add(f"it sent a message of more than {LONGEST_LINE // 1_000_000} MB")
            except (asyncio.IncompleteReadError, OSError):
                return faults.add("its process has ended")
            try:
                message = SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
            except ValueError:
                wrong += bool(line.strip())
                if wrong > _NO_MESSAGES:
                    return faults.add("it writes lines to its output that are no messages of MCP")
                continue
            try:
                await incoming.send(message)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return
            count += 1 + len(line) // _BYTES
            now = asyncio.get_running_loop().time()
            if count >= _AT_ONCE:
                await asyncio.sleep(max(0.0, count / _PER_S - (now - since)))
                since, count = asyncio.get_running_loop().time(), 0


async def _write(process: ServerProcess, sent: MemoryObjectReceiveStream[SessionMessage], faults: Faults) -> None:
    async with sent:
        async for one in sent:
            text = one.message.model_dump_json(by_alias=True, exclude_unset=True)
            try:
                await process.send(text.encode() + b"\n")
            except OSError:
                return faults.add("its process has ended")
