"""The route of a run's record: its events as JSON lines; of a live run those that there are."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from agent.turns import Turns
from memory.store import NO_RUN, Store
from runs.errors import ChatError
from runs.events import Entry
from transports.identity import Identity

_AT_ONCE = 500
"""Events that are written before others get their turn: encoding one that nobody has followed takes 20 µs."""


def add_records(router: APIRouter, turns: Turns, identity: Identity) -> None:
    """Adds `GET /runs/{run_id}`."""
    store = turns.store

    @router.get("/runs/{run_id}")
    async def record(run_id: str, request: Request, after: Annotated[int, Query(ge=0)] = 0) -> StreamingResponse:
        """`X-Run-Live: 0` says that nothing follows these events."""
        run = turns.runs.find(run_id)
        conversation_id = run.conversation_id if run else await store.conversation_of(run_id)
        await _check(store, conversation_id, identity.visitor(request.cookies))
        live = run is not None and not run.ended
        lines = run.log.entries[after:] if run else (await store.record(run_id)).split("\n")[after:]
        headers = {"Cache-Control": "no-cache", "X-Run-Live": str(int(live))}
        return StreamingResponse(_written(lines), headers=headers, media_type="application/x-ndjson")


async def _check(store: Store, conversation_id: str, visitor: str | None) -> None:
    """A record is for those who may use its conversation, and goes with it, also while it is still in memory.

    Nothing tells a run that is another's from one that does not exist.
    """
    try:
        await store.conversation(conversation_id, visitor)
    except ChatError as e:
        raise ChatError("not_found", NO_RUN) if e.code == "not_found" else e from None


async def _written(lines: Sequence[Entry | str]) -> AsyncGenerator[str, None]:
    for start in range(0, len(lines), _AT_ONCE):
        batch = lines[start : start + _AT_ONCE]
        yield "".join(f"{line if isinstance(line, str) else line.json}\n" for line in batch)
        await asyncio.sleep(0)
