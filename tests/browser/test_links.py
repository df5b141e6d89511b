"""Links that bring a message and choices: the page is filled in, and nothing is sent."""

import re
from collections.abc import Callable
from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat


@pytest.mark.parametrize(
    "text", ["How old do whales get?", "<img src=x onerror=alert(1)> ${1}\n/calculator 2*3", "x" * 3000]
)
def test_a_link_fills_in_the_message_and_the_menus(app: RunningApp, new_chat: Callable[..., Chat], text: str) -> None:
    query = urlencode({"q": text, "backend": "Parrot", "memory": "window"})
    chat = new_chat(f"{app.url}?{query}")
    expect(chat.page.locator("#prompt textarea")).to_have_value(text)
    expect(chat.page.locator("#backend input")).to_have_value("Parrot")
    expect(chat.page.locator("#memory input")).to_have_value(re.compile("^window"))
    assert chat.page.url == app.url and chat.texts("user") == []
    assert chat.page.is_visible("#intro") and chat.errors == []
    chat.page.press("#prompt textarea", "Enter")
    chat.wait_end()
    assert chat.reply() == "Hello."


def test_a_link_with_unknown_names_changes_nothing(app: RunningApp, new_chat: Callable[..., Chat]) -> None:
    chat = new_chat(f"{app.url}?backend=No+such&memory=none+such&other=1")
    expect(chat.page.locator("#backend input")).to_have_value("Scripted tour")
    assert chat.page.url == f"{app.url}?other=1" and chat.errors == []
