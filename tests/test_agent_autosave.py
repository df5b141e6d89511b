import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent import autosave
from agent.autosave import final_reply
from agent.turn import TurnRequest
from agent.turns import Turns
from memory import database as database_module
from memory.messages import Message, Standing
from runs import events
from runs.errors import ChatError
from runs.live import Lifetime, LiveRun
from settings import Settings
from tests.conftest import until
from tests.grammar import check_run


@pytest.mark.parametrize(
    ("last", "standing", "note"),
    [
        (events.Complete("x", {}, {}), "whole", None),
        (events.Stopped("x", "user", {}, {}), "stopped", "Stopped by you"),
        (events.Error("timeout", "Try again.", True, "x"), "failed", "Try again."),
    ],
)
@pytest.mark.parametrize("noted", [None, "B answered instead of A. A failed."])
async def test_reply_standing_follows_the_last_event(
    last: events.Event, standing: Standing, note: str | None, noted: str | None
) -> None:
    run = LiveRun(conversation_id="c", backend="b", memory="m", owner=None, lifetime=Lifetime())
    run.emit(events.Token("x", 1))
    run.notes = [noted] if noted else []
    ended = final_reply(Message("1", "assistant", "", "growing", run.id), run, run.state, last)
    both = (note, noted) if standing == "failed" else (noted, note)  # a failure begins with its cause
    notes = " ".join(text for text in both if text) or None
    assert ended == Message("1", "assistant", "x", standing, run.id, notes, backend="b")


async def test_reply_refused_by_a_locked_database_is_reported_and_saved_later(
    turns: Turns, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autosave, "_AGAIN_S", (0.05,) * 100)
    monkeypatch.setattr(database_module, "_BUSY_MS", 50)  # for connections that are opened from now on
    await turns.store.close()
    await turns.store.open()
    run = await turns.start(TurnRequest("tour", "anna", backend="Slow script"))
    await until(lambda: run.text)
    file = Path(settings.database_url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        await until(lambda: run.ended)
        received = check_run(run)
        assert received[-1]["type"] == "complete"
        assert run.unsaved
        assert any(run.unsaved in e["content"] for e in received if e["type"] == "status")
        other.execute("ROLLBACK")
    for _ in range(200):
        reply = (await turns.store.history(run.conversation_id))[-1]
        if reply.standing == "whole":
            break
        await asyncio.sleep(0.02)
    assert reply.text == received[-1]["content"]
    assert (await turns.store.record(run.id)).count("\n") == len(received) - 1


async def test_later_turns_see_a_reply_that_is_not_saved_yet(
    turns: Turns, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autosave, "_AGAIN_S", (0.05,) * 400)
    monkeypatch.setattr(database_module, "_BUSY_MS", 50)
    await turns.store.close()
    await turns.store.open()
    run = await turns.start(TurnRequest("tour", "anna", backend="Slow script"))
    await until(lambda: run.text)
    end_turn = turns.store.end_turn

    async def refused(ended: LiveRun, *more: Any) -> None:
        if ended is run:
            raise ChatError("internal", "the database is locked", retryable=True)
        await end_turn(ended, *more)

    with monkeypatch.context() as patch:
        patch.setattr(turns.store, "end_turn", refused)
        await run.stop("user")
        turns.runs._kept = 0  # an ended run is kept until it is stored
        given = [await _given(turns, run.conversation_id, n) for n in range(4)]
        assert [message.standing for message in await turns.store.history(run.conversation_id)][1] == "growing"
    assert given == [run.text] * 4
    for _ in range(400):
        stored = (await turns.store.history(run.conversation_id))[1]
        if stored.standing == "stopped":
            break
        await asyncio.sleep(0.02)
    assert await _given(turns, run.conversation_id, 5) == stored.text == run.text
    assert turns.runs.find(run.id) is None


async def _given(turns: Turns, conversation_id: str, number: int) -> str:
    """Returns the first reply of a conversation as its next turn gets it."""
    run = await turns.start(TurnRequest(f"cut {number}", "anna", conversation_id, backend="Script", memory="full"))
    assert run.task
    await run.task
    context = next(entry.event for entry in run.log.entries if isinstance(entry.event, events.Context))
    return str(context.messages[2]["content"])


async def test_autosave_task_ends_with_the_last_run(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autosave, "_EVERY_S", 60)

    def growing() -> list[asyncio.Task[Any]]:
        return [task for task in asyncio.all_tasks() if task.get_name() == "autosave"]

    for _ in range(2):
        run = await turns.start(TurnRequest("tour", "anna", backend="Slow script"))
        await until(growing)
        await run.stop("user")
        await until(lambda: not growing(), 1)
