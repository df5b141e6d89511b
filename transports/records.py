"""The route of a run's record: its events as JSON lines; of a live run those that there are."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from agent.turns import Turns
from runs.events import Entry
from transports.finding import Line, find_run
from transports.identity import Identity

_AT_ONCE = 500
"""Events that are written before others get their turn: encoding one that nobody has followed takes 20 µs."""


def add_records(router: APIRouter, turns: Turns, identity: Identity) -> None:
    """Adds `GET /runs/{run_id}`."""

    @router.get(
        "/runs/{run_id}",
        response_class=StreamingResponse,
        responses={200: {"description": "JSON lines.", "content": {"application/x-ndjson": {}}}},
        tags=["runs"],
    )
    async def record(run_id: str, request: Request, after: Annotated[int, Query(ge=0)] = 0) -> StreamingResponse:
        """A run's events so far; `X-Run-Live: 0` says that nothing follows these."""
        found = await find_run(turns, run_id, identity.visitor(request.cookies))
        headers = {"Cache-Control": "no-cache", "X-Run-Live": str(int(not found.ended))}
        return StreamingResponse(_written(found.lines[after:]), headers=headers, media_type="application/x-ndjson")


async def _written(lines: Sequence[Entry | Line]) -> AsyncGenerator[str, None]:
    for start in range(0, len(lines), _AT_ONCE):
        yield "".join(f"{line.json}\n" for line in lines[start : start + _AT_ONCE])
        await asyncio.sleep(0)
