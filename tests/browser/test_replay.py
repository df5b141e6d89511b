"""Replays on the page: the controls, used with the mouse."""

import pytest

from tests.app_process import RunningApp
from tests.browser.conftest import LIVE_TEXT, Chat

MOMENT = ".replay input"


@pytest.fixture(scope="module")
def app(paced_app: RunningApp) -> RunningApp:
    return paced_app


def length_of(chat: Chat) -> float:
    return float(chat.page.get_attribute(MOMENT, "max") or 0)


def go_to(chat: Chat, moment: float) -> None:
    """Draws the slider to a moment and lets go of it."""
    chat.page.fill(MOMENT, str(moment))
    chat.page.wait_for_function("document.querySelector('.replay .play').ariaLabel === 'Play'")


def test_a_reply_is_played_again_at_any_speed_and_from_any_moment(chat: Chat) -> None:
    page = chat.page
    chat.send("tools")
    chat.wait_end()
    chat.send("tour")
    chat.wait_end()
    reply, address = chat.reply(), page.url
    page.locator("#chat").get_by_label("Replay").last.click()
    page.wait_for_selector(".replay", state="visible")
    chat.watch_phases()
    assert "?run=" in page.url
    assert not page.is_visible("#prompt")
    page.wait_for_selector("#live-reply summary b")
    grown = len(chat.live())
    page.wait_for_function(f"document.querySelector('#live-reply').innerText.trim().length > {grown + 60}")
    page.wait_for_selector("#agent-state [data-phase=complete]", timeout=15_000)
    assert {"thinking", "streaming", "tool", "complete"} <= set(chat.phases)
    whole = "\n".join(text.strip() for text in page.locator(LIVE_TEXT).all_inner_texts())
    assert whole == reply
    steps = page.locator("#timeline .bars > li").count()

    go_to(chat, length_of(chat) / 2)  # the thinking at its beginning takes longer on a busy machine
    page.wait_for_function("!document.querySelector('#agent-state [data-phase=complete]')")
    assert 0 < len(chat.live()) < len(reply)
    assert page.locator("#timeline .bars > li").count() < steps
    stands = page.text_content(".clock")
    page.wait_for_timeout(600)
    assert page.text_content(".clock") == stands, "a replay that stands still has no clock that runs"

    page.select_option(".replay select", "20")
    page.click(".replay .play")
    page.wait_for_selector("#agent-state [data-phase=complete]", timeout=5000)
    played = len(chat.phases)
    page.click(".replay .play")
    page.wait_for_function("played => window.phases.length > played", arg=played, timeout=5000)

    page.click(".replay a")
    page.wait_for_selector("#prompt textarea", state="visible")
    assert page.url == address
    page.locator("#chat [data-testid=user]").nth(1).wait_for()
    assert chat.texts("user") == ["tools", "tour"]
    assert chat.errors == []


def test_another_conversation_ends_the_replay_which_offers_no_prompts(chat: Chat) -> None:
    page = chat.page
    chat.send("tour")
    chat.wait_end()
    page.goto(str(page.locator(".turn a").last.evaluate("a => a.href")))
    page.wait_for_selector(".replay", state="visible")
    page.wait_for_function("document.querySelector('#about p')?.textContent")  # the page is ready for clicks
    assert page.locator("[data-prompt]:visible").count() == 0
    page.click("#sidebar .new")
    page.wait_for_selector(".replay", state="hidden")
    page.click("#intro .demos button >> text=tools")
    chat.wait_end()
    assert "?conversation=" in page.url
    assert "run=" not in page.url
    assert chat.texts("user") == ["tools"]
    assert chat.errors == []


def test_a_new_visitor_plays_the_example(chat: Chat) -> None:
    page = chat.page
    page.get_by_text("Play a recorded run").click()
    page.wait_for_selector(".replay", state="visible")
    assert chat.texts("user") == ["tour"]
    page.select_option(".replay select", "20")
    page.wait_for_selector("#agent-state [data-phase=complete]", timeout=15_000)
    assert "scripted tour" in chat.live()
    chat.tab("Events")
    page.locator("#events .rows > *").first.wait_for()
    page.get_by_text("Start a conversation").click()
    page.wait_for_function("!location.search")
    chat.wait_ready()
    chat.send("hello")
    chat.wait_end()
    assert chat.texts("user") == ["hello"]
    assert chat.errors == []
