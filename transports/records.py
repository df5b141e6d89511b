"""The route of a run's record: its events as JSON lines; of a live run those that there are."""

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from agent.turns import Turns
from hosting.identity import Identity
from transports.chunks import in_chunks
from transports.run_lookup import RunEvents, load_run


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
        found = await load_run(turns, run_id, identity.requester(request))
        headers = {"Cache-Control": "no-cache", "X-Run-Live": str(int(not found.ended))}
        return StreamingResponse(_written(found, after), headers=headers, media_type="application/x-ndjson")


async def _written(found: RunEvents, after: int) -> AsyncGenerator[bytes, None]:
    lines = found.lines[after:]
    async for data in in_chunks(("", line.json, "\n") for line in lines):
        yield data
