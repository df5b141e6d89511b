"""The live line: what a run does while its reply does not grow, and that nothing moves when it does."""

import re

import pytest
from playwright.sync_api import expect

from tests.app_process import RunningApp
from tests.browser.conftest import LIVE_TEXT, Chat

LINE = "#live-line .line"
WATCH = """() => {
  const seen = window.__line = [], line = document.querySelector('#live-line .line');
  new MutationObserver(() => { if (line.textContent !== seen.at(-1)) seen.push(line.textContent); })
    .observe(line, { childList: true, characterData: true, subtree: true });
}"""
WATCH_TOPS = """() => {
  const tops = window.__tops = {};
  const look = () => {
    const line = document.querySelector('#live-line .line');
    const text = document.querySelector('#live-reply p, #chat .bot-row p');
    if (line.textContent && !text) tops.line = line.getBoundingClientRect().top;
    if (text) tops.text ??= text.getBoundingClientRect().top;
    if (!tops.text) requestAnimationFrame(look);
  };
  look();
}"""


@pytest.fixture(scope="module")
def app(paced_app: RunningApp) -> RunningApp:
    return paced_app


@pytest.fixture
def chat(reused_chat: Chat) -> Chat:
    return reused_chat


def lines(chat: Chat) -> list[str]:
    return list(chat.page.evaluate("window.__line"))


def test_silent_model_is_waited_for_by_a_clock_where_the_reply_will_be(chat: Chat) -> None:
    chat.page.evaluate(WATCH)
    chat.send("hang")
    expect(chat.page.locator(LINE)).to_have_text(re.compile(r"^Waiting · 1\.\d s$"))
    assert chat.page.locator(LIVE_TEXT).count() == 0
    chat.page.click("#stop")
    chat.wait_end()
    expect(chat.page.locator(LINE)).to_be_hidden()
    counted = [float(line.split()[2]) for line in lines(chat) if line.startswith("Waiting")]
    assert len(counted) >= 5 and counted == sorted(counted)
    assert chat.errors == []


def test_tool_and_retry_are_named_and_the_line_is_empty_while_text_grows(chat: Chat) -> None:
    page = chat.page
    page.evaluate(WATCH)
    chat.send("tools")
    expect(page.locator(LINE)).to_have_text(re.compile(r"^Running count · \d\.\d s$"))
    chat.wait_end()
    assert "" in lines(chat)[lines(chat).index(next(line for line in lines(chat) if "count" in line)) :]
    chat.send("busy")
    expect(page.locator(LINE)).to_have_text(re.compile(r"^Retrying: [12] of 3"))
    chat.wait_end()
    assert chat.errors == []


def test_first_text_stands_where_the_line_was(chat: Chat) -> None:
    chat.page.evaluate(WATCH_TOPS)
    chat.send("busy")
    chat.wait_end()
    tops = chat.page.evaluate("window.__tops")
    assert tops["text"] == pytest.approx(tops["line"], abs=2)


def test_line_is_silent_for_screen_readers(chat: Chat) -> None:
    line = chat.page.locator(LINE)
    assert line.get_attribute("aria-hidden") == "true"
    assert line.evaluate("(node) => node.closest('[aria-live], [role=status], [role=log]')") is None
