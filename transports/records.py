"""The route of a run's record: its events as JSON lines."""

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from agent.turns import Turns
from transports.chunks import in_chunks
from transports.dependencies import CurrentRequester
from transports.run_lookup import RunEvents, load_run


def add_records(router: APIRouter, turns: Turns) -> None:
    """Adds `GET /runs/{run_id}`."""

    @router.get(
        "/runs/{run_id}",
        response_class=StreamingResponse,
        responses={200: {"description": "JSON lines.", "content": {"application/x-ndjson": {}}}},
        tags=["runs"],
    )
    async def record(
        run_id: str, requester: CurrentRequester, after: Annotated[int, Query(ge=0)] = 0
    ) -> StreamingResponse:
        """A run's events so far; `X-Run-Live: 0` means that the run has ended."""
        run = await load_run(turns, run_id, requester)
        headers = {"Cache-Control": "no-cache", "X-Run-Live": str(int(not run.ended))}
        return StreamingResponse(_json_lines(run, after), headers=headers, media_type="application/x-ndjson")


async def _json_lines(run: RunEvents, after: int) -> AsyncGenerator[bytes, None]:
    lines = run.lines[after:]
    async for data in in_chunks(("", line.json, "\n") for line in lines):
        yield data
