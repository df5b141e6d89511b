"""The options of a memory mode of one's own, on the page."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.app_process import RunningApp
from tests.browser.conftest import SCRIPTED, Chat

_MODE = """
from typing import Annotated, Literal
from pydantic import Field
from memory.own_modes import own_mode

def choose(past, limits, *, first: Annotated[int, Field(ge=0, le=20, title="First turns kept <b>")] = 1,
           long_replies: bool = True, order: Literal["new", "old"] = "new"):
    return past.messages if long_replies else past.messages[:first]

mode = own_mode("mine", "Mine: some of them", choose, ["window_turns"])
"""
_CONFIG = f"""
[[memory.modes]]
path = "my_modes:mode"
{SCRIPTED}
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    folder = tmp_path_factory.mktemp("modes")
    (folder / "my_modes.py").write_text(_MODE)
    with RunningApp(folder, _CONFIG) as app:
        yield app


def shown(chat: Chat) -> Locator:
    return chat.page.locator("#options .mode-options")


def kept(chat: Chat) -> Any:
    """What the server would be sent for the chosen mode."""
    return chat.page.evaluate("window.glassbox.modeOptions('mine')")


def test_options_are_shown_for_their_mode_alone_sent_and_restored(chat: Chat) -> None:
    chat.page.click("#show-options")
    expect(shown(chat)).to_be_hidden()
    chat.page.click("#options .close")
    chat.choose("memory", "mine")
    chat.page.click("#show-options")
    box = shown(chat)
    expect(box.locator(".label")).to_have_text("Memory: mine")
    first, long, order = (
        box.get_by_label("First turns kept <b>"),
        box.get_by_label("Long replies"),
        box.get_by_label("Order"),
    )
    expect(first).to_have_value("1")
    expect(long).to_be_checked()
    first.fill("3")
    expect(first).to_be_focused()  # it is not drawn again
    long.uncheck()
    order.select_option("old")
    assert kept(chat) == {"first": 3, "long_replies": False, "order": "old"}
    chat.page.click("#options .close")
    chat.send("Hello")
    chat.wait_end()
    chat.page.reload()
    chat.wait_ready()
    chat.page.click("#show-options")
    expect(box.get_by_label("First turns kept <b>")).to_have_value("3")
    expect(box.get_by_label("Long replies")).not_to_be_checked()
    expect(box.get_by_label("Order")).to_have_value("old")
    chat.page.click("#options .close")
    chat.choose("memory", "none")
    chat.page.click("#show-options")
    expect(shown(chat)).to_be_hidden()
    assert chat.errors == []


def test_a_value_out_of_range_is_not_sent(chat: Chat) -> None:
    chat.choose("memory", "mine")
    chat.page.click("#show-options")
    shown(chat).get_by_label("First turns kept <b>").fill("21")
    chat.page.click("#options .close")
    chat.type("Hello")
    chat.page.press("#prompt textarea", "Enter")
    expect(chat.page.locator(".toast-wrap")).to_contain_text(
        "Not sent. mode_options, first: found '21', allowed: a whole number of 0 to 20."
    )
    expect(chat.page.locator("#prompt textarea")).to_have_value("Hello")
    assert chat.errors == []
