"""Helpers for tests of turns: start one, wait for its end, pick its events."""

import asyncio
from typing import Any

import pytest

from agent.turn import TurnRequest
from agent.turns import Turns
from runs.errors import ChatError
from runs.live import LiveRun
from tests.grammar import check_run

Events = list[dict[str, Any]]


async def ended(run: LiveRun) -> Events:
    assert run.task
    await asyncio.wait_for(asyncio.shield(run.task), 20)
    return check_run(run)


async def asked(turns: Turns, message: str, **more: Any) -> tuple[LiveRun, Events]:
    run = await turns.start(TurnRequest(message, "anna", **more))
    return run, await ended(run)


def of(received: Events, kind: str) -> Events:
    return [e for e in received if e["type"] == kind]


async def refused(turns: Turns, ask: TurnRequest) -> ChatError:
    with pytest.raises(ChatError) as raised:
        await turns.start(ask)
    assert not list(turns.runs.live()), "nothing has started"
    return raised.value
