"""Work for a client ends when the client disconnects: it would occupy the server for a response that has no reader."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import HTTPException, Request

T = TypeVar("T")
_CLIENT_CLOSED_REQUEST = 499
"""The status that nginx logs for a client that disconnected before its response."""


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Returns the result of the work, which is cancelled if the client disconnects. The body must have been read.

    Raises HTTPException after a disconnect, and what the work raises.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_disconnect(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(_CLIENT_CLOSED_REQUEST, "the client has disconnected.")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
