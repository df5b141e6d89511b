"""The page's handlers of turns: send, follow, retry, edit, undo, clear, and opening a conversation."""

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import Any

import gradio as gr
import pytest

from agent.turn import TurnRequest
from components.conversation_view import refresh_view
from components.handlers import Handlers
from components.messages import render_message_controls
from components.page_state import INITIAL_MESSAGES
from hosting.identity import COOKIE, Identity
from runs.example_run import EXAMPLE_ID
from tests.conftest import until
from tests.grammar import check_run
from tests.pages import Chosen, Data, Page, cookie, shown_text, words

pytest_plugins = ["tests.pages"]


async def test_turn_streams_into_the_live_reply_and_then_the_conversation(page: Page) -> None:
    await page.begin("tour", backend="Slow script")
    assert (page.texts, page.prompt) == (["tour"], "")
    run = page.handlers.runs.get(str(page.state.run_id), page.visitor)
    await page.follow()
    assert len(page.lives) > 5
    assert all(words(later).startswith(words(earlier)) for earlier, later in pairwise(page.lives))
    assert page.texts[1] == page.lives[-1]
    assert page.panels[-1]["phase"] == "complete"
    assert any(panel["phase"] == "thinking" and panel["parts"] for panel in page.panels)
    assert sum("context" in panel for panel in page.panels) <= 2
    assert page.state.run_id is None
    check_run(run)


async def test_blank_prompt_sends_nothing(page: Page) -> None:
    await page.begin("  \n ")
    assert (page.state, page.chat) == (page.empty, [])
    await page.follow()
    assert page.panels == []


async def test_rejected_message_warns_and_stays_in_the_prompt(page: Page) -> None:
    with pytest.warns(UserWarning, match="1,000,000"):
        await page.begin("x" * 1_000_000)
    assert page.prompt == "x" * 1_000_000
    assert page.state.run_id is None


async def test_stop_ends_the_run_and_the_reply_says_so(page: Page) -> None:
    await page.begin("endless", backend="Slow script")
    following = asyncio.create_task(page.follow())
    await until(lambda: page.lives and page.lives[-1])
    await page.handlers.on_stop(page.state, page.request)
    await asyncio.wait_for(following, 10)
    assert page.panels[-1]["phase"] == "stopped"
    assert page.chat[-1]["content"][-1]["text"] == "<p class='note'>Stopped by you</p>"


async def test_reload_during_a_reply_follows_it_to_the_end(page: Page, handlers: Handlers) -> None:
    await page.begin("tour", backend="Slow script", memory="window")
    leaving = asyncio.create_task(page.follow())
    await until(lambda: page.lives and page.lives[-1])
    leaving.cancel()
    await asyncio.wait({leaving})
    again = Page(handlers, page.request.cookies[COOKIE])
    updates = await again.load(conversation=str(page.state.conversation_id))
    assert again.state.run_id == page.state.run_id
    assert again.texts == ["tour"]
    assert updates["backend"] == "Slow script"
    assert updates["memory"] == "window"
    await again.follow()
    assert again.panels[-1]["phase"] == "complete"
    assert again.texts[1] == again.lives[-1]


async def test_reload_after_the_end_shows_the_last_state(page: Page, handlers: Handlers) -> None:
    await page.send("tour")
    again = Page(handlers, page.request.cookies[COOKIE])
    updates = await again.load(conversation=str(page.state.conversation_id))
    assert again.chat == page.chat
    assert updates["panel"]["phase"] == "complete"
    assert updates["panel"]["context"]["messages"]
    assert again.state.run_id is None


@pytest.mark.parametrize("reloads", [False, True])
async def test_reply_of_a_forgotten_run_comes_from_the_store(page: Page, handlers: Handlers, reloads: bool) -> None:
    await page.begin("tour")
    run = handlers.runs.find(page.state.run_id)
    await until(lambda: run and run.ended)
    handlers.runs._kept = 0
    await handlers.turns.start(TurnRequest("tour", "ben"))
    assert run and handlers.runs.find(run.id) is None
    if reloads:
        updates = await page.load(conversation=run.conversation_id)
        panel = updates["panel"]
    else:
        await page.follow()
        panel = page.panels[-1]
    assert words(page.texts[1]).endswith(words(run.text)[-100:])
    assert (panel["phase"], panel["tokens"]) == ("complete", run.state.tokens)
    assert page.state.run_id is None


async def test_new_page_is_empty(page: Page) -> None:
    updates = await page.load()
    assert (page.state, page.chat, updates["panel"]["latest"]) == (page.empty, [], EXAMPLE_ID)
    assert updates["backend"] == "Script"
    assert updates["memory"] == "tokens"


async def test_ids_of_another_visitor_open_nothing(page: Page, handlers: Handlers, identity: Identity) -> None:
    await page.begin("endless", backend="Slow script")
    for other in (Page(handlers, cookie(identity)), Page(handlers, None)):
        with pytest.warns(UserWarning, match="not yours"):
            await other.load(conversation=str(page.state.conversation_id))
        assert (other.state, other.chat) == (other.empty, [])
        # Gradio keeps a page's state under an id that any client may name, so another client can send one
        taken = other.state = replace(page.state, shown=list(page.state.shown))
        await other.follow()
        assert other.panels == []
        await other.begin("  ")
        assert (other.state, other.chat) == (other.empty, [])
        await handlers.on_stop(taken, other.request)
        with pytest.warns(UserWarning, match="no message to undo"):
            await handlers.on_undo(taken, other.request, Data(0))  # type: ignore[arg-type]
        assert (await handlers.on_show_earlier(taken, other.request))["page"] == other.empty
        await handlers.on_clear(taken, other.request)
    assert not [run for run in [handlers.runs.find(page.state.run_id)] if run is None or run.ended]
    assert await handlers.store.size(str(page.state.conversation_id)) == 2


async def test_retry_edit_and_undo_do_what_they_say(page: Page, handlers: Handlers) -> None:
    await page.send("one")
    await page.send("faults")
    retry: Any = Chosen({"id": page.state.shown[2].id})
    page.apply(await handlers.on_regenerate(page.state, page.request, retry, "Script", "tokens", *page.options))
    await page.follow()
    assert [page.texts[0], page.texts[2]] == ["one", "faults"]
    assert len(page.chat) == 4
    edit: Any = Data(0, [{"type": "text", "text": "tour <b>"}])
    page.apply(await handlers.on_edit(page.state, page.request, edit, "Script", "tokens", *page.options))
    await page.follow()
    assert page.texts[0] == "tour <b>"
    assert len(page.chat) == 2
    page.apply(await handlers.on_undo(page.state, page.request, Data(0)))  # type: ignore[arg-type]
    assert (page.prompt, page.chat) == ("tour <b>", [])
    assert await handlers.store.size(str(page.state.conversation_id)) == 0
    assert len(await handlers.store.tree(str(page.state.conversation_id))) == 7


async def test_branches_are_switched_and_any_reply_is_regenerated(page: Page, handlers: Handlers) -> None:
    await page.send("one")
    await page.send("two")
    first = page.state.shown[0]
    again: Any = Chosen({"id": first.id})
    page.apply(await handlers.on_regenerate(page.state, page.request, again, "Script", "tokens", *page.options))
    await page.follow()
    assert page.texts[::2] == ["one"]
    turn = render_message_controls(await refresh_view(handlers.store, handlers.runs, page.state))[1]
    assert (len(turn["versions"]), turn["asked"], turn["run"]) == (2, first.id, page.state.shown[1].run_id)
    updates = await handlers.on_switch_branch(page.state, page.request, Chosen({"id": turn["versions"][0]}))  # type: ignore[arg-type]
    page.apply(updates)
    assert page.texts[::2] == ["one", "two"]
    assert updates["panel"]["run"] == page.state.shown[-1].run_id
    for odd in ({"id": "no such"}, {"id": 7}, None):
        with pytest.warns(UserWarning, match="no longer there"):
            await handlers.on_switch_branch(page.state, page.request, Chosen(odd))  # type: ignore[arg-type]
    await page.begin("tour", backend="Slow script")
    with pytest.warns(UserWarning, match="still being written"):
        await handlers.on_switch_branch(page.state, page.request, Chosen({"id": turn["versions"][1]}))  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Not sent")
async def test_reply_stays_when_another_page_switched_the_branch(page: Page, handlers: Handlers) -> None:
    await page.send("one")
    await page.begin("two")
    run = handlers.runs.find(page.state.run_id)
    await until(lambda: run and run.ended)
    other = Page(handlers, page.request.cookies[COOKIE])
    await other.load(conversation=str(page.state.conversation_id))
    other.apply(await handlers.on_undo(other.state, other.request, Data(2)))  # type: ignore[arg-type]
    await page.follow()
    shown = page.texts
    assert run and page.state.shown[-1].run_id == run.id and words(shown[-1]).endswith(words(run.text)[-100:])
    page.options = (None, 9.0, *page.options[2:])
    await page.begin("three")  # refused: the page is drawn again
    assert page.texts == shown
    handlers.runs._runs.clear()
    with pytest.warns(UserWarning, match="could not be drawn again"):
        await page.begin("three")
    assert page.texts == shown


async def test_clear_deletes_the_conversation_and_ends_its_run(page: Page, handlers: Handlers) -> None:
    await page.begin("endless", backend="Slow script")
    run = handlers.runs.find(page.state.run_id)
    conversation_id = str(page.state.conversation_id)
    page.apply(await handlers.on_clear(page.state, page.request))
    assert run
    assert run.ended
    assert (page.state, page.chat) == (page.empty, [])
    assert await handlers.store.size(conversation_id) == 0


async def test_clear_during_a_run_shows_nothing_more_of_it(page: Page, handlers: Handlers) -> None:
    await page.begin("endless", backend="Slow script")
    page_at_begin, yields = page.state, []
    async for update in handlers.follower.follow(page_at_begin, page.request):
        yields.append(update)
        if len(yields) == 3:
            page.apply(await handlers.on_clear(page_at_begin, page.request))
            cleared_at = len(yields)
    assert all(update == (gr.skip(), gr.skip()) for update in yields[cleared_at:])
    updates = await handlers.follower.finish(page_at_begin, page.request)
    assert (updates["page"], updates["chat"], updates["live"]) == (page.empty, [], [])


async def test_conversation_deleted_elsewhere_empties_the_page_and_keeps_the_prompt(
    page: Page, handlers: Handlers
) -> None:
    await page.send("one")
    await handlers.turns.conversations.delete(str(page.state.conversation_id))
    with pytest.warns(UserWarning, match="start a new one"):
        await page.begin("two")
    assert (page.state, page.chat, page.prompt) == (page.empty, [], "two")
    await page.send("two")
    assert page.texts[0] == "two"


async def test_long_conversation_shows_its_end_and_more_on_demand(page: Page, handlers: Handlers) -> None:
    given: Any = [("user" if n % 2 == 0 else "assistant", str(n)) for n in range(100)]
    conversation_id = await handlers.store.create(None, given)
    await page.load(conversation=conversation_id)
    assert page.texts == [str(n) for n in range(100 - INITIAL_MESSAGES, 100)]
    assert page.state.earlier == 100 - INITIAL_MESSAGES
    updates = await handlers.on_show_earlier(page.state, page.request)
    assert [shown_text(m["content"][0]["text"]) for m in updates["chat"]] == [
        str(n) for n in range(100 - 2 * INITIAL_MESSAGES, 100)
    ]
    assert updates["page"].earlier == 100 - 2 * INITIAL_MESSAGES


async def test_another_and_a_new_conversation_open_in_place(page: Page) -> None:
    await page.send("one", memory="window")
    one = page.state.conversation_id
    await page.open(None)
    assert (page.state, page.texts) == (page.empty, [])
    await page.send("two")
    updates = await page.open(one)
    assert (page.state.conversation_id, page.texts[0], updates["memory"]) == (one, "one", "window")
    await page.send("three")
    assert (page.state.conversation_id, page.texts[2]) == (one, "three")


async def test_conversation_of_another_visitor_is_not_opened(
    page: Page, handlers: Handlers, identity: Identity
) -> None:
    await page.send("secret")
    other = Page(handlers, cookie(identity))
    await other.send("mine")
    for given in (page.state.conversation_id, "no such", "\x00", ""):
        with pytest.warns(UserWarning, match="no such conversation"):
            await other.open(given)
        assert (other.state, other.chat) == (other.empty, [])


@pytest.mark.parametrize("earlier", [False, True])
async def test_run_continues_without_its_page_and_is_found_again(page: Page, handlers: Handlers, earlier: bool) -> None:
    given: Any = [("user" if n % 2 == 0 else "assistant", str(n)) for n in range(60)]
    long = await handlers.store.create(page.visitor, given)
    await page.load(conversation=long)
    await page.begin("endless", backend="Slow script")
    run = handlers.runs.get(str(page.state.run_id), page.state.visitor)
    following = asyncio.create_task(page.follow())
    await until(lambda: page.lives and page.lives[-1])
    if earlier:
        page.state = (await handlers.on_show_earlier(page.state, page.request))["page"]
    await page.open(None)
    await asyncio.wait_for(following, 10)
    assert (page.state, run.ended) == (page.empty, False)
    await page.open(long)
    assert page.state.run_id == run.id
    await handlers.on_stop(page.state, page.request)
    await asyncio.wait_for(page.follow(), 10)
    assert page.panels[-1]["phase"] == "stopped"


async def test_two_pages_of_one_visitor_see_the_same_run(page: Page, handlers: Handlers) -> None:
    await page.begin("tour", backend="Slow script")
    other = Page(handlers, page.request.cookies[COOKIE])
    await other.load(conversation=str(page.state.conversation_id))
    await asyncio.gather(page.follow(), other.follow())
    assert page.texts == other.texts
    with pytest.warns(UserWarning, match="Not sent"):
        await handlers.turns.start(TurnRequest("endless", page.visitor, page.state.conversation_id))
        await page.begin("again")


async def test_late_finish_leaves_a_new_run_alone(page: Page, handlers: Handlers) -> None:
    assert await handlers.follower.finish(page.empty, page.request) == {"live": []}
    await page.begin("endless", backend="Slow script")
    assert await handlers.follower.finish(page.state, page.request) == {}
    await handlers.on_stop(page.state, page.request)
    await page.follow()
    assert page.state.run_id is None
