"""Distances, edges and colours on the page, as the browser draws them."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import FloatRect, Page, expect

from tests.browser.conftest import Chat
from tests.test_page_colours import contrast


def box(page: Page, selector: str) -> FloatRect:
    """The place of the last element that is visible, in pixels."""
    found = page.locator(f"{selector} >> visible=true").last.bounding_box()
    assert found
    return found


def style(page: Page, selector: str, name: str) -> str:
    return str(page.locator(selector).first.evaluate("(node, name) => getComputedStyle(node)[name]", name))


def hexadecimal(colour: str) -> str:
    """A colour as in a style sheet; the argument is `rgb(…)`."""
    red, green, blue = (int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    return f"#{red:02x}{green:02x}{blue:02x}"


@pytest.mark.parametrize("width", [1280, 390])
def test_a_reply_stands_near_the_message_that_it_answers(new_chat: Callable[..., Chat], width: int) -> None:
    chat = new_chat(width=width)
    chat.send("hello")
    chat.wait_end()
    asked, reply = box(chat.page, "#chat .user-row"), box(chat.page, "#chat .bot-row")
    assert 0 < reply["y"] - asked["y"] - asked["height"] <= 34


def test_the_card_of_a_failed_reply_has_an_edge_on_each_side(chat: Chat) -> None:
    chat.send("wrong key")
    chat.wait_end()
    chat.page.locator("#chat .failure").wait_for()
    widths = [style(chat.page, "#chat .failure", f"border{side}Width") for side in ("Top", "Right", "Bottom", "Left")]
    assert widths == ["1px", "1px", "1px", "3px"]


@pytest.mark.parametrize("width", [768, 390])
def test_the_box_is_as_wide_as_the_conversation(new_chat: Callable[..., Chat], width: int) -> None:
    page = new_chat(width=width).page
    column, prompt, send = box(page, "#intro .prompts"), box(page, "#prompt textarea"), box(page, "#send")
    assert prompt["x"] == pytest.approx(column["x"], abs=1)
    assert send["x"] + send["width"] == pytest.approx(column["x"] + column["width"], abs=1)


def test_the_text_of_clear_ends_below_the_end_of_send(chat: Chat) -> None:
    text: Any = """() => {
      const range = document.createRange();
      range.selectNodeContents(document.querySelector('#clear'));
      return range.getBoundingClientRect().right - document.querySelector('#send').getBoundingClientRect().right;
    }"""
    assert chat.page.evaluate(text) == pytest.approx(0, abs=2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_chosen_tool_has_a_tick_that_can_be_seen(new_chat: Callable[..., Chat], scheme: str) -> None:
    page = new_chat(scheme=scheme).page
    page.click("#show-options")
    assert page.locator("#tools input").first.is_checked()
    colour = hexadecimal(style(page, "#tools input", "backgroundColor"))
    assert contrast(colour, "#ffffff") >= 3, "the tick is white"
    assert contrast(colour, "#18181b" if scheme == "dark" else "#fafafb") >= 3


def test_the_demonstrations_have_a_title(chat: Chat) -> None:
    expect(chat.page.get_by_role("group", name="Demonstrations, and what can go wrong")).to_be_visible()


def test_a_comparison_without_a_turn_has_a_title_and_no_single_tab(chat: Chat) -> None:
    chat.page.evaluate("window.glassbox.emit('compare', {})")
    expect(chat.page.get_by_role("dialog", name="Compare memory modes")).to_be_visible()
    expect(chat.page.locator("#viewer .views")).to_be_hidden()
