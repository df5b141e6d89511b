"""Prompts x backends x memory modes, all at once over one stream: for comparing, so nothing of it is stored."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import product
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field

from agent.turn import Turn, TurnRequest
from agent.turns import Turns
from hosting.identity import Identity
from memory.options import ReplyOptions, TurnOptions
from runs.errors import ChatError
from runs.events import encode_json
from runs.requester import Requester
from transports.streams import Stream, encode, events_of

_AT_ONCE = 4
"""Cells of one batch that run at the same time, if a visitor may have as many."""
_MOST_CELLS = 256
_WAITING = 64
"""Writes that may wait for a slow reader; its runs' logs hold the rest."""


class Batch(ReplyOptions):
    """Every combination becomes a cell; its index is (p·B + b)·M + m."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    prompts: Annotated[list[str], Field(min_length=1, max_length=_MOST_CELLS)]
    backends: Annotated[list[str] | None, Field(min_length=1, max_length=_MOST_CELLS)] = None
    memory: Annotated[list[str] | None, Field(min_length=1, max_length=_MOST_CELLS)] = None


def add_batch(router: APIRouter, turns: Turns, identity: Identity) -> None:
    """Adds `POST /batch`."""

    @router.post(
        "/batch",
        response_class=Response,
        responses={200: {"description": "Events, each with its cell's `index`.", "content": {"text/event-stream": {}}}},
        tags=["runs"],
    )
    async def batch(given: Batch, request: Request) -> Response:
        """Streams the replies to every combination; one cell's failure is that cell's `error` alone."""
        requester = identity.requester(request)
        cells = await _cells(turns, given, requester)
        turns.quota.check(requester, len(cells))
        turns.quota.count(requester, len(cells))
        return Stream(_written(turns, cells))


async def _cells(turns: Turns, given: Batch, requester: Requester) -> list[Turn]:
    """The cells in the order of their index. Raises ChatError for what no cell could answer."""
    backends = given.backends or [turns.backends.default.name]
    modes = given.memory or [turns.settings.memory.default]
    if (size := len(given.prompts) * len(backends) * len(modes)) > _MOST_CELLS:
        raise ChatError("too_large", f"These are {size:,} combinations; at most {_MOST_CELLS} can be run at once.")
    options = TurnOptions(**given.model_dump(include=set(ReplyOptions.model_fields)))
    combinations = product(given.prompts, backends, modes)
    cells: list[Turn] = []
    for prompt, backend, mode in combinations:
        cells.append(
            turns.prepare(
                TurnRequest(prompt, requester.visitor, None, backend, mode, options, address=requester.address)
            )
        )
        await asyncio.sleep(0)  # a cell takes some milliseconds, as a message does
    return cells


async def _written(turns: Turns, cells: Sequence[Turn]) -> AsyncGenerator[bytes, None]:
    """All cells' events as they come; runs that are still live when the reader leaves end with it."""
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING)
    places = asyncio.Semaphore(turns.quota.runs_at_once(_AT_ONCE))

    async def answer(index: int, cell: Turn) -> None:
        async with places:
            run = turns.start_ephemeral(cell)
            try:
                async with aclosing(events_of(run)) as batches:
                    async for batch in batches:
                        await waiting.put(b"".join(_encoded({**entry.wire(), "index": index}) for entry in batch))
            finally:
                run.request_stop("abandoned")  # where the reader has left
                if run.task:
                    run.task.add_done_callback(lambda _: turns.runs.discard(run))

    async def answer_all() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for index, cell in enumerate(cells):
                    group.create_task(answer(index, cell))
            await waiting.put(_encoded({"type": "batch_done", "cells": len(cells)}))
        finally:
            await waiting.put(None)

    answering = asyncio.create_task(answer_all(), name="batch")
    try:
        chunks: list[bytes | None] = []
        while not chunks or chunks[-1] is not None:
            chunks = [await waiting.get()]
            while not waiting.empty():
                chunks.append(waiting.get_nowait())
            yield b"".join(chunk for chunk in chunks if chunk)
        await answering
    finally:
        answering.cancel()


def _encoded(body: dict[str, Any]) -> bytes:
    return encode(body["type"], encode_json(body))
