"""Replays on the page: the controls, used with the mouse."""

import pytest

from tests.app_process import RunningApp
from tests.browser.conftest import Chat

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
    page.locator(".turn a", has_text="Replay").last.click()
    page.wait_for_selector(".replay", state="visible")
    chat.watch_phases()
    assert "?run=" in page.url
    assert not page.is_visible("#prompt")
    page.wait_for_selector("#live-parts summary b")
    grown = len(chat.live())
    page.wait_for_function(f"document.querySelector('#live-reply').textContent.trim().length > {grown}")
    page.wait_for_selector("#agent-state [data-phase=complete]", timeout=15_000)
    assert {"thinking", "streaming", "tool", "complete"} <= set(chat.phases)
    whole = page.locator("#live-reply [data-testid=bot]").inner_text().strip()
    assert whole == reply
    steps = page.locator("#timeline .bars > li").count()

    go_to(chat, length_of(chat) / 4)
    page.wait_for_function("!document.querySelector('#agent-state [data-phase=complete]')")
    assert 0 < len(chat.live()) < len(reply)
    assert page.locator("#timeline .bars > li").count() < steps
    stands = page.text_content(".clock")
    page.wait_for_timeout(600)
    assert page.text_content(".clock") == stands, "a replay that stands still has no clock that runs"

    page.select_option(".replay select", "20")
    page.click(".replay .play")
    page.wait_for_selector("#agent-state [data-phase=complete]", timeout=5000)
    page.click(".replay .play")
    page.wait_for_selector("#agent-state [data-phase=complete]", state="detached", timeout=5000)

    page.click(".replay a")
    page.wait_for_selector("#prompt textarea", state="visible")
    assert page.url == address
    page.locator("#chat [data-testid=user]").nth(1).wait_for()
    assert chat.texts("user") == ["tools", "tour"]
    assert chat.errors == []


def test_another_message_ends_the_replay(chat: Chat) -> None:
    page = chat.page
    chat.send("tour")
    chat.wait_end()
    page.goto(str(page.locator(".turn a").last.evaluate("a => a.href")))
    page.wait_for_selector(".replay", state="visible")
    page.click("#about .menu button >> text=tools")
    page.wait_for_selector(".replay", state="hidden")
    chat.wait_end()
    assert "?conversation=" in page.url
    assert "run=" not in page.url
    assert chat.texts("user") == ["tools"]
    assert chat.errors == []
