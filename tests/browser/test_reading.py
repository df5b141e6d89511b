"""The conversation by the keyboard and by a screen reader, and for a reader who has scrolled up."""

import re

import pytest
from playwright.sync_api import expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat

PROMPT = "#prompt textarea"
WATCH_LIVE = """() => {
  const spoken = window.__spoken = [];
  const isLive = (node) => {
    const region = node.closest('[aria-live], [role=log], [role=status], [role=alert]');
    return region && region.ariaLive !== 'off' && region.closest('#conversation') ? region : null;
  };
  new MutationObserver((changes) => {
    const nodes = changes.map(({ target }) => target.nodeType === 1 ? target : target.parentElement);
    for (const region of new Set(nodes.map(isLive))) {
      const text = region?.textContent.trim();
      if (text && spoken.at(-1) !== text) spoken.push(text);
    }
  }).observe(document.body, { childList: true, characterData: true, subtree: true });
}"""
TOP = "document.querySelector('#scroll').scrollTop"
LEFT = "(() => { const c = document.querySelector('#scroll'); return c.scrollHeight - c.clientHeight - c.scrollTop })()"


@pytest.fixture(scope="module")
def app(paced_app: RunningApp) -> RunningApp:
    return paced_app


@pytest.fixture
def chat(reused_chat: Chat) -> Chat:
    return reused_chat


def stop_by_escape(chat: Chat) -> None:
    chat.page.keyboard.press("Escape")
    chat.wait_end()
    assert chat.phase == "stopped"


def test_box_is_named_and_each_message_begins_with_its_author(chat: Chat) -> None:
    chat.send("tools")
    chat.wait_end()
    assert chat.page.get_by_role("textbox", name="Message", exact=True).count() == 1
    read = chat.page.locator("#chat").aria_snapshot()
    lines = [line.strip(" -") for line in read.split("\n")]
    author = next(i for i, line in enumerate(lines) if re.search(r"\bScripted tour\b", line))
    assert any(re.search(r"\bYou\b", line) for line in lines[:author])
    assert "I ask three tools" in " ".join(lines[author:])
    assert chat.page.locator("#chat .author").all_text_contents() == ["You", "Scripted tour"]
    assert "<" not in read


def test_reply_is_announced_once_and_its_tokens_are_not(chat: Chat) -> None:
    chat.page.evaluate(WATCH_LIVE)
    chat.send("tools")
    chat.wait_end()
    chat.page.wait_for_function("window.__spoken.at(-1).includes('All three have answered')")
    chat.page.wait_for_timeout(500)
    spoken = chat.page.evaluate("window.__spoken")
    assert len(spoken) <= 6, spoken
    assert [text for text in spoken if "I ask three" in text] == spoken[-1:]
    assert spoken[:-1] and set(spoken[:-1]) <= {"Queued", "Waiting for the model", "Writing", "Running a tool"}


def test_escape_stops_a_run_but_first_closes_what_is_open(chat: Chat) -> None:
    page = chat.page
    chat.send("endless")
    chat.wait_token()
    page.focus(PROMPT)
    page.keyboard.type("/c")
    expect(page.locator("#commands li").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#commands li").first).to_be_hidden()
    page.wait_for_timeout(300)
    assert chat.phase == "streaming"
    stop_by_escape(chat)
    assert page.input_value(PROMPT) == "/c"


def test_focus_returns_to_the_box(chat: Chat) -> None:
    page, box = chat.page, chat.page.locator(PROMPT)
    chat.send("endless")
    chat.wait_token()
    page.focus("#stop")
    page.keyboard.press("Enter")
    expect(box).to_be_focused()
    chat.wait_end()
    page.locator("#chat").get_by_label("Retry").last.focus()
    page.keyboard.press("Enter")
    expect(box).to_be_focused()
    chat.wait_token()
    stop_by_escape(chat)
    expect(box).to_be_focused()
    chat.send("approval")
    page.locator(".asked .yes").focus()
    page.keyboard.press("Enter")
    expect(box).to_be_focused()
    chat.wait_end()


def test_enter_submits_an_edit_and_escape_cancels_it(chat: Chat) -> None:
    page = chat.page
    chat.send("one")
    chat.wait_end()
    edit = page.locator("#chat").get_by_label("Edit", exact=True)
    edit.first.focus()
    page.keyboard.press("Enter")
    page.fill("#chat textarea", "changed")
    page.keyboard.press("Escape")
    expect(page.locator("#chat textarea")).to_have_count(0)
    assert chat.texts("user") == ["one"]
    edit.first.focus()
    page.keyboard.press("Enter")
    page.fill("#chat textarea", "two")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("lines")
    chat.wait_next_end(lambda: page.keyboard.press("Enter"))
    assert chat.texts("user") == ["two\nlines"]
    expect(page.locator(PROMPT)).to_be_focused()


def scrolled_up(chat: Chat, pixels: int) -> float:
    chat.page.mouse.move(400, 300)
    chat.page.mouse.wheel(0, -pixels)
    chat.page.wait_for_timeout(300)
    return float(chat.page.evaluate(TOP))


def test_reader_who_has_scrolled_up_can_jump_to_the_latest(chat: Chat) -> None:
    page, jump = chat.page, chat.page.get_by_role("button", name="Jump to latest")
    for _ in range(2):
        chat.send("tour")
        chat.wait_end()
    expect(jump).to_be_hidden()
    chat.send("endless")
    chat.wait_token()
    top = scrolled_up(chat, 500)
    expect(jump).to_be_visible()
    page.wait_for_timeout(500)
    assert page.evaluate(TOP) == top
    jump.click()
    expect(jump).to_be_hidden()
    expect(page.locator(PROMPT)).to_be_focused()
    page.wait_for_timeout(500)
    assert page.evaluate(LEFT) < 24, "and follows again"
    chat.stop()


def test_approval_moves_no_reader_who_has_scrolled_up(chat: Chat) -> None:
    for _ in range(2):
        chat.send("tour")
        chat.wait_end()
    chat.send("approval")
    chat.page.wait_for_selector(".asked .card")
    top = scrolled_up(chat, 400)
    chat.page.eval_on_selector(".asked .yes", "(button) => button.click()")
    chat.wait_end()
    chat.page.wait_for_timeout(300)
    assert chat.page.evaluate(TOP) == top


def test_message_text_has_full_contrast_and_actions_are_large_enough(chat: Chat) -> None:
    chat.send("tour")
    chat.wait_end()
    page = chat.page
    assert set(
        page.locator("#chat .prose").evaluate_all("(all) => all.map((one) => getComputedStyle(one).opacity)")
    ) == {"1"}
    buttons = page.locator("#chat .message-buttons:visible :is(button, a):visible")
    sizes = buttons.evaluate_all(
        "(all) => all.map((one) => one.getBoundingClientRect()).map((b) => [b.width, b.height])"
    )
    assert len(sizes) >= 6 and all(width >= 28 and height >= 28 for width, height in sizes), sizes
    context = page.locator("#chat .turn .context").last
    assert context.inner_text() == "Inspect"
    assert page.get_by_role("button", name="Inspect", exact=True).count() >= 1


def test_controls_show_where_the_focus_is(chat: Chat) -> None:
    chat.send("one")
    chat.wait_end()
    page = chat.page
    page.focus("#chat .turn .retry")
    page.keyboard.press("Tab")
    ring = page.evaluate(
        "(({ outlineStyle, outlineWidth }) => [outlineStyle, outlineWidth])(getComputedStyle(document.activeElement))"
    )
    assert page.evaluate("document.activeElement.className") == "context"
    assert ring == ["solid", "2px"]
