"""The batch route: every prompt on every backend with every memory mode, as one stream. Only its cost is stored."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import product
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field

from agent.turn import Turn, TurnRequest
from agent.turns import Turns
from memory.modes import get_mode
from memory.options import ReplyOptions, TurnOptions
from runs.errors import ChatError
from runs.json_text import encode_json
from runs.requester import Requester
from transports.dependencies import CurrentRequester
from transports.schemas import Logprobs
from transports.streams import SSEResponse, encode_sse, follow_run

_AT_ONCE = 4
"""The most cells of a batch that run at once; a visitor's limit may be lower."""
_MAX_CELLS = 256
_WAITING = 64
"""The most writes that wait for a slow reader; the logs of its runs hold the rest."""


class Batch(ReplyOptions):
    """Each combination is a cell with the index (p·B + b)·M + m."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    prompts: Annotated[list[str], Field(min_length=1, max_length=_MAX_CELLS)]
    backends: Annotated[list[str] | None, Field(min_length=1, max_length=_MAX_CELLS)] = None
    memory: Annotated[list[str] | None, Field(min_length=1, max_length=_MAX_CELLS)] = None
    logprobs: Logprobs = None


def add_batch(router: APIRouter, turns: Turns) -> None:
    """Adds `POST /batch`."""

    @router.post(
        "/batch",
        response_class=Response,
        responses={200: {"description": "Events, each with its cell's `index`.", "content": {"text/event-stream": {}}}},
        tags=["runs"],
    )
    async def run_batch(batch: Batch, requester: CurrentRequester) -> Response:
        """Streams the replies to all combinations. A failed cell ends with an `error` of its own."""
        cells = await _cells(turns, batch, requester)
        turns.quota.check(requester, len(cells))
        turns.quota.count(requester, len(cells))
        return SSEResponse(_encoded_events(turns, cells))


async def _cells(turns: Turns, batch: Batch, requester: Requester) -> list[Turn]:
    """The cells in the order of their index. Raises ChatError for a request that no cell could answer."""
    backends = batch.backends or [turns.backends.default.name]
    modes = batch.memory or [turns.settings.memory.default]
    if (size := len(batch.prompts) * len(backends) * len(modes)) > _MAX_CELLS:
        raise ChatError("too_large", f"These are {size:,} combinations; at most {_MAX_CELLS} can be run at once.")
    options = TurnOptions(**batch.model_dump(include=set(ReplyOptions.model_fields)))
    own = {mode: _mode_options(options, mode, modes) for mode in modes}
    visitor, address, cells = requester.visitor, requester.address, list[Turn]()
    for prompt, backend, mode in product(batch.prompts, backends, modes):
        chosen = options.model_copy(update={"mode_options": own[mode]})
        request = TurnRequest(prompt, visitor, None, backend, mode, chosen, address=address, logprobs=batch.logprobs)
        cells.append(turns.prepare(request))
        await asyncio.sleep(0)  # preparing a cell takes some milliseconds
    return cells


def _mode_options(options: TurnOptions, mode: str, modes: Sequence[str]) -> dict[str, Any]:
    """Returns the options for a memory mode, without those that only other modes of the batch have."""
    names = {one: {option.name for option in get_mode(one).options} for one in modes}
    others = set[str]().union(*names.values()) - names[mode]
    return {name: value for name, value in (options.mode_options or {}).items() if name not in others}


async def _encoded_events(turns: Turns, cells: Sequence[Turn]) -> AsyncGenerator[bytes, None]:
    """Yields the events of all cells as they come. Runs that are still live when the reader leaves are ended."""
    writes: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING)
    slots = asyncio.Semaphore(turns.quota.runs_at_once(_AT_ONCE))

    async def run_cell(index: int, cell: Turn) -> None:
        async with slots:
            run = turns.start_ephemeral(cell)
            try:
                async with aclosing(follow_run(run)) as batches:
                    async for batch in batches:
                        await writes.put(b"".join(_encoded({**entry.wire(), "index": index}) for entry in batch))
            finally:
                run.request_stop("abandoned")  # has no effect on a run that has ended
                if run.task:
                    run.task.add_done_callback(lambda _: turns.runs.discard(run))

    async def run_all() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for index, cell in enumerate(cells):
                    group.create_task(run_cell(index, cell))
            await writes.put(_encoded({"type": "batch_done", "cells": len(cells)}))
        finally:
            await writes.put(None)

    running = asyncio.create_task(run_all(), name="batch")
    try:
        chunks: list[bytes | None] = []
        while not chunks or chunks[-1] is not None:
            chunks = [await writes.get()]
            while not writes.empty():
                chunks.append(writes.get_nowait())
            yield b"".join(chunk for chunk in chunks if chunk)
        await running
    finally:
        running.cancel()


def _encoded(event: dict[str, Any]) -> bytes:
    return encode_sse(event["type"], encode_json(event))
