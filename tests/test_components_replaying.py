"""A page that replays a run: `/?run=ID`."""

import asyncio
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import gradio as gr
import pytest

from agent.turns import Ask
from components.handlers import Handlers
from runs.calls import Answer
from runs.replay import Player
from tests.conftest import until
from tests.pages import Chosen, Page, cookie, shown_text, words
from transports.identity import Identity

pytest_plugins = ["tests.pages"]


@pytest.fixture(params=["in memory", "stored"])
async def run_id(page: Page, request: pytest.FixtureRequest) -> str:
    """Of the second of three turns."""
    await page.send("first")
    await page.send("tour")
    run = page.handlers.runs.find(page.state.drawn[-1].run_id)
    await page.send("third")
    assert run
    if request.param == "stored":
        page.handlers.runs.discard(run)
    return run.id


def player_of(page: Page) -> Player:
    player = page.handlers.replaying._players.get(page.state.player)
    assert player
    return player


async def play(page: Page, **wanted: Any) -> None:
    await page.handlers.replaying.on_play(page.state, page.request, Chosen(wanted))  # type: ignore[arg-type]


async def frames(page: Page) -> list[tuple[str, Any]]:
    """The reply and the panel of each frame."""
    shown = []
    async with aclosing(page.handlers.replaying.follow(page.state, page.request)) as updates:  # type: ignore[type-var]
        async for live, panel in updates:
            skipped = panel == gr.skip()
            text = "" if skipped or not live else shown_text(live[0]["content"][0]["text"])
            shown.append((text, None if skipped else panel))
    return shown


async def test_it_begins_at_the_beginning_below_what_the_run_answers(page: Page, run_id: str) -> None:
    updates = await page.load(run=run_id)
    assert page.texts[::2] == ["first", "tour"] and page.state.drawn[-1].role == "user"
    live, panel = updates[2:4]
    assert (live, panel["phase"], panel["live"]) == ([], "queued", True)
    assert panel["replay"] == {"at_s": 0, "length_s": panel["replay"]["length_s"], "speed": 1, "playing": False}
    assert panel["replay"]["length_s"] > 0
    assert (page.state.conversation_id, page.state.run_id) == (None, None), "nothing on this page changes anything"


async def test_it_plays_to_the_end_and_shows_any_moment(page: Page, run_id: str) -> None:
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


async def test_one_that_waited_for_an_approval_asks_for_none_again(page: Page) -> None:
    await page.begin("approval")
    run = page.handlers.runs.get(str(page.state.run_id), page.state.visitor)
    await until(lambda: run.state.phase == "approval")
    await asyncio.sleep(0.1)
    run.calls.answer(run.state.approvals[0].tool_call_id, Answer(True))
    await until(lambda: run.ended)
    await page.load(run=run.id)
    asked = next(entry for entry in run.log.entries if entry.type == "approval")
    await play(page, at=asked.at - run.log.entries[0].at + 0.03, speed=1, playing=False)
    [(_, panel)] = await frames(page)
    assert (panel["phase"], panel["approvals"]) == ("approval", [])


async def test_who_plays_ends_when_something_else_is_wanted(page: Page, run_id: str) -> None:
    await page.load(run=run_id)
    await play(page, at=0, speed=0.1, playing=True)
    playing = asyncio.create_task(frames(page))
    await asyncio.sleep(0.15)
    await play(page, at=0.01, speed=0.1, playing=False)
    earlier, [(_, there)] = await asyncio.wait_for(playing, 5), await frames(page)
    assert earlier[-1] == ("", None), "the last values are shown once more, so they must be none"
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
async def test_hostile_wishes_are_taken_as_far_as_they_go(page: Page, run_id: str, at: Any) -> None:
    await page.load(run=run_id)
    await play(page, at=at, speed=at, playing=at)
    player = player_of(page)
    assert 0 <= player.moment_s <= player.replay.length_s
    await page.handlers.replaying.on_play(page.state, page.request, Chosen(at))  # type: ignore[arg-type]


async def test_it_is_for_those_who_may_see_the_run(
    page: Page, run_id: str, handlers: Handlers, identity: Identity
) -> None:
    other = Page(handlers, cookie(identity))
    for unknown in (run_id, "no such run", "\0", "x" * 10_000):
        with pytest.warns(UserWarning, match="no such run"):
            updates = await other.load(run=unknown)
        assert (other.state, other.chat, updates[3]) == (other.empty, [], None)
    await page.load(run=run_id)
    other.state = page.state
    await play(other, at=1, speed=1, playing=True)
    assert not player_of(page).playing
    assert await frames(other) == [("", None)]


async def test_a_live_run_is_shown_in_its_conversation(page: Page) -> None:
    run = await page.handlers.turns.start(Ask("endless", page.empty.visitor, backend="Slow script"))
    await page.load(run=run.id)
    assert (page.state.run_id, page.state.conversation_id, page.state.player) == (run.id, run.conversation_id, None)
    await run.stop("user")


@pytest.mark.parametrize("record", ["no JSON", '{"type": "later than this version"}'])
async def test_a_record_that_cannot_be_read_is_told(page: Page, record: str) -> None:
    await page.send("first")
    run = page.handlers.runs.find(page.state.drawn[-1].run_id)
    assert run
    page.handlers.runs.discard(run)
    reply = await page.handlers.store.message(run.conversation_id, page.state.drawn[-1].id)
    await page.handlers.store.end_turn(run, reply, record)
    run_id = run.id
    with pytest.warns(UserWarning, match="cannot be replayed"):
        await page.load(run=run_id)
    assert page.state == page.empty
