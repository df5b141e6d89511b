"""Replays of runs: `/?run=ID`."""

import asyncio
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import gradio as gr
import pytest

from agent.turn import TurnRequest
from components.handlers import Handlers
from hosting.identity import Identity
from runs.example_run import EXAMPLE_ID
from runs.replay import Player
from runs.tool_calls import ApprovalAnswer
from tests.conftest import until
from tests.pages import Chosen, Page, cookie, drawn_text, words

pytest_plugins = ["tests.pages"]


@pytest.fixture(params=["in memory", "stored"])
async def run_id(page: Page, request: pytest.FixtureRequest) -> str:
    """The id of the second of three runs."""
    await page.send("first")
    await page.send("tour")
    run = page.handlers.runs.find(page.state.shown[-1].run_id)
    await page.send("third")
    assert run
    if request.param == "stored":
        page.handlers.runs.discard(run)
    return run.id


def player_of(page: Page) -> Player:
    player = page.handlers.replay._players.get(page.state.player)
    assert player
    return player


async def play(page: Page, **wanted: Any) -> None:
    await page.handlers.replay.on_play(page.state, page.request, Chosen(wanted))  # type: ignore[arg-type]


async def frames(page: Page) -> list[tuple[str, Any]]:
    """Returns the reply and the panel of each frame."""
    shown = []
    async with aclosing(page.handlers.replay.follow(page.state, page.request)) as updates:  # type: ignore[type-var]
        async for live, panel in updates:
            skipped = panel == gr.skip()
            text = "" if skipped else drawn_text(live)
            shown.append((text, None if skipped else panel))
    return shown


async def test_replay_begins_at_the_start_below_the_message(page: Page, run_id: str) -> None:
    updates = await page.load(run=run_id)
    assert page.texts[::2] == ["first", "tour"] and page.state.shown[-1].role == "user"
    live, panel = updates["live"], updates["panel"]
    assert (live, panel["phase"], panel["live"]) == ([], "queued", True)
    assert panel["replay"] == {"at_s": 0, "length_s": panel["replay"]["length_s"], "speed": 1, "playing": False}
    assert panel["replay"]["length_s"] > 0
    assert (page.state.conversation_id, page.state.run_id) == (None, None), "a replay can change nothing"


async def test_replay_plays_to_the_end_and_shows_any_moment(page: Page, run_id: str) -> None:
    await page.load(run=run_id)
    length = player_of(page).replay.length_s
    await play(page, at=0, speed=length, playing=True)
    shown = await frames(page)
    texts = [text for text, _ in shown]
    assert len(shown) > 5
    assert all(words(later).startswith(words(earlier)) for earlier, later in pairwise(texts))
    assert shown[-1][1]["phase"] == "complete"
    assert shown[-1][1]["replay"]["playing"] is False
    assert shown[-1][1]["context"]
    await play(page, at=length, speed=1, playing=False)
    [(whole, _)] = await frames(page)
    await page.load(conversation=str(shown[-1][1]["conversation"]))
    assert whole == texts[-1] == page.texts[3]


async def test_replay_asks_for_no_approval(page: Page) -> None:
    await page.begin("approval")
    run = page.handlers.runs.get(str(page.state.run_id), page.state.visitor)
    await until(lambda: run.state.phase == "approval")
    await asyncio.sleep(0.1)
    run.tool_calls.answer(run.state.approvals[0].tool_call_id, ApprovalAnswer(True))
    await until(lambda: run.ended)
    await page.load(run=run.id)
    asked = next(entry for entry in run.log.entries if entry.type == "approval")
    await play(page, at=asked.at - run.log.entries[0].at + 0.03, speed=1, playing=False)
    [(_, panel)] = await frames(page)
    assert (panel["phase"], panel["approvals"]) == ("approval", [])


async def test_replay_ends_when_the_page_shows_something_else(page: Page, run_id: str) -> None:
    await page.load(run=run_id)
    await play(page, at=0, speed=0.1, playing=True)
    playing = asyncio.create_task(frames(page))
    await asyncio.sleep(0.15)
    await play(page, at=0.01, speed=0.1, playing=False)
    earlier, [(_, there)] = await asyncio.wait_for(playing, 5), await frames(page)
    assert earlier[-1] == ("", None), "Gradio sends the last values again, so they must be empty"
    assert there["replay"]["at_s"] == 0.01
    for leave in (page.begin("next"), page.open(None)):
        await page.load(run=run_id)
        await play(page, at=0, speed=0.1, playing=True)
        playing = asyncio.create_task(frames(page))
        await asyncio.sleep(0.15)
        await leave
        assert (await asyncio.wait_for(playing, 5))[-1] == ("", None)
        await page.follow()


@pytest.mark.parametrize("at", [None, "x", float("nan"), float("inf"), -1e300, 1e300, True, [], {"at": 1}])
async def test_hostile_replay_commands_are_bounded(page: Page, run_id: str, at: Any) -> None:
    await page.load(run=run_id)
    await play(page, at=at, speed=at, playing=at)
    player = player_of(page)
    assert 0 <= player.position_s <= player.replay.length_s
    await page.handlers.replay.on_play(page.state, page.request, Chosen(at))  # type: ignore[arg-type]


async def test_replay_is_only_for_the_owner_of_the_run(
    page: Page, run_id: str, handlers: Handlers, identity: Identity
) -> None:
    other = Page(handlers, cookie(identity))
    for unknown in (run_id, "no such run", "\0", "x" * 10_000):
        with pytest.warns(UserWarning, match="no such run"):
            updates = await other.load(run=unknown)
        assert (other.state, other.chat, updates["panel"]["latest"]) == (other.empty, [], EXAMPLE_ID)
    await page.load(run=run_id)
    other.state = page.state
    await play(other, at=1, speed=1, playing=True)
    assert not player_of(page).playing
    assert await frames(other) == [("", None)]


async def test_live_run_is_shown_in_its_conversation(page: Page) -> None:
    run = await page.handlers.turns.start(TurnRequest("endless", page.empty.visitor, backend="Slow script"))
    await page.load(run=run.id)
    assert (page.state.run_id, page.state.conversation_id, page.state.player) == (run.id, run.conversation_id, None)
    await run.stop("user")


@pytest.mark.parametrize("record", ["no JSON", '{"type": "later than this version"}'])
async def test_unreadable_record_warns(page: Page, record: str) -> None:
    await page.send("first")
    run = page.handlers.runs.find(page.state.shown[-1].run_id)
    assert run
    page.handlers.runs.discard(run)
    reply = await page.handlers.store.message(run.conversation_id, page.state.shown[-1].id)
    await page.handlers.store.end_turn(run, reply, record)
    run_id = run.id
    with pytest.warns(UserWarning, match="cannot be replayed"):
        await page.load(run=run_id)
    assert page.state == page.empty
