"""A local model that thinks: the visitor ends its thinking, or switches it off."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat
from tests.local_model import THINKING_TEMPLATE, with_template

CONFIG = """
[limits]
reply_tokens = 400

[[backends]]
name = "Thinker"
kind = "local"
model = "{model}"
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    folder = tmp_path_factory.mktemp("thinker")
    model = with_template(THINKING_TEMPLATE, folder / "thinker.gguf").model
    with RunningApp(folder, CONFIG.format(model=model)) as app:
        yield app


def test_answer_now_ends_the_thinking(chat: Chat) -> None:
    button = chat.page.get_by_role("button", name="Answer now")
    expect(button).to_be_hidden()
    chat.send("Tell me a long story about a whale.")
    expect(chat.part("Thinking", "#live-reply")).to_be_visible()
    button.click()
    chat.wait_token()
    expect(button).to_be_hidden()
    expect(chat.page.locator("#prompt textarea")).to_be_focused()
    expect(chat.part("Thought", "#live-reply")).to_be_visible()
    chat.stop()
    assert chat.reply()
    assert chat.errors == []


def test_thinking_that_is_switched_off_is_not_there(chat: Chat) -> None:
    chat.page.click("#show-options")
    chat.page.uncheck("#thinking input")
    chat.page.click("#options .close")
    chat.send("Tell me a long story about a whale.")
    chat.wait_token()
    assert chat.page.locator("#live-reply .parts details").count() == 0
    expect(chat.page.get_by_role("button", name="Answer now")).to_be_hidden()
    chat.stop()
