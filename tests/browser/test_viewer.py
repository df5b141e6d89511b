"""What the model was given, as somebody looks into it: the panel, the viewer, and two memory modes side by side."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator

from tests.app_process import RunningApp
from tests.browser.conftest import Chat, Contexts

VIEWER = "#viewer dialog"


@pytest.fixture(scope="module")
def conversation(app: RunningApp, contexts: Contexts) -> Iterator[Chat]:
    """Two turns, so that there is something to remember."""
    with contexts.visit(app.url) as chat:
        for message in ("tools", "tools again"):
            chat.send(message)
            chat.wait_end()
        yield chat


@pytest.fixture
def talked(conversation: Chat) -> Iterator[Chat]:
    """A page of its own on that conversation."""
    page = conversation.page.context.new_page()
    chat = Chat(page, conversation.page.url)
    page.wait_for_selector("#context [data-context]", state="attached")
    chat.tab("Context")
    yield chat
    page.close()


def pick(chat: Chat, *modes: str) -> None:
    """Chooses two memory modes to read side by side."""
    for mode in modes:
        chat.page.click(f"{VIEWER} .modes [data-mode={mode}]")


def column(chat: Chat, place: int) -> Locator:
    """A side of the comparison, when it shows its answer."""
    found = chat.page.locator(f"{VIEWER} .column").nth(place)
    chat.page.wait_for_function(
        "n => document.querySelectorAll('#viewer .column')[n].getAttribute('aria-busy') === 'false'", arg=place
    )
    return found


def opened(chat: Chat) -> bool:
    return bool(chat.page.evaluate("document.querySelector('#viewer dialog').open"))


def test_the_panel_has_the_parts_and_opens_the_whole_of_each_call(talked: Chat) -> None:
    page = talked.page
    assert page.locator("#context .key li").count() > 0
    page.click("#context [data-context]")
    page.locator(f"{VIEWER} .given li").first.wait_for()
    assert page.locator(f"{VIEWER} .calls button").all_text_contents() == ["1", "Call 2 of 2"]
    last = page.locator(f"{VIEWER} .given li").count()
    page.locator(f"{VIEWER} .calls button").first.click()
    assert page.locator(f"{VIEWER} .calls button").all_text_contents() == ["Call 1 of 2", "2"]
    assert page.locator(f"{VIEWER} .given li").count() < last, "the second call has the tools' results"
    assert talked.errors == []


def test_what_is_shown_and_copied_is_what_the_route_answers(talked: Chat) -> None:
    page = talked.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    with page.expect_response(lambda answer: answer.url.endswith("/context")) as received:
        page.click("#context [data-context]")
    context = received.value.json()["contexts"][-1]
    page.locator(f"{VIEWER} .given li").first.wait_for()
    texts = page.locator(f"{VIEWER} .given .text").all_text_contents()
    assert texts == [message["content"] or "empty" for message in context["messages"]]
    page.click(f"{VIEWER} .copy")
    page.locator(f"{VIEWER} .copy").get_by_text("Copied").wait_for()
    assert json.loads(page.evaluate("navigator.clipboard.readText()")) == context


def test_it_closes_by_escape_and_by_a_click_beside_it_and_the_focus_returns(talked: Chat) -> None:
    page = talked.page
    button = page.locator("#context [data-context]")
    button.press("Enter")
    assert opened(talked)
    page.keyboard.press("Escape")
    assert not opened(talked)
    assert button.evaluate("node => node === document.activeElement")
    button.click()
    page.mouse.click(20, 400)
    assert not opened(talked)


def test_an_earlier_reply_opens_its_own_context_and_its_own_turn_to_compare(talked: Chat) -> None:
    page = talked.page
    page.locator("#chat .turn :is([data-inspect], [data-context])").first.click()
    page.locator("#agent-state .older").wait_for()
    page.click("#context [data-context]")
    page.locator(f"{VIEWER} .given li").first.wait_for()
    assert page.locator(f"{VIEWER} .given li", has_text="tools again").count() == 0
    page.keyboard.press("ArrowRight")
    pick(talked, "none", "full")
    column(talked, 0)
    assert page.text_content(f"{VIEWER} .ask span") == "This turn again"
    assert page.get_attribute(f"{VIEWER} .ask textarea", "placeholder") == "tools"
    assert talked.errors == []


def test_two_modes_are_compared_on_the_draft_and_the_difference_is_said(talked: Chat) -> None:
    page = talked.page
    talked.type("And what now?")
    page.click("#context [data-compare]")
    sums = page.locator(f"{VIEWER} .modes small")
    page.wait_for_function("document.querySelectorAll('#viewer .modes small:not(:empty)').length === 6")
    assert sums.count() == 6, "all modes are shown as bars first"
    assert page.locator(f"{VIEWER} .columns").is_hidden()
    legend = page.locator(f"{VIEWER} .of-modes li")
    shown = set(page.locator(f"{VIEWER} .modes .fill i").evaluate_all("all => all.map((one) => one.dataset.part)"))
    assert set(legend.evaluate_all("all => all.map((one) => one.dataset.part)")) == shown, "each colour has its name"
    assert "recent" in shown and all(legend.all_text_contents())
    pick(talked, "none", "full")
    left, right = column(talked, 0), column(talked, 1)
    page.wait_for_function("document.querySelector('#viewer .difference').textContent.startsWith('none sends')")
    assert left.locator(".rows-given [data-only]").count() == 0
    assert right.locator(".rows-given [data-only]").count() > 0
    assert "And what now?" in left.locator(".rows-given .preview").all_text_contents()
    assert left.locator(".group").count() > 0 and right.locator(".group").count() == 0
    assert "tokens in" in (right.locator(".cost").text_content() or "")
    assert talked.errors == []


def test_a_wrong_parameter_is_said_where_it_is_and_a_right_one_is_used_on_the_page(talked: Chat) -> None:
    page = talked.page
    talked.type("And what now?")
    page.click("#context [data-compare]")
    pick(talked, "window", "full")
    column(talked, 0)
    turns = page.locator(f"{VIEWER} .column [name=window_turns]").first
    turns.fill("-3")
    page.locator(f"{VIEWER} .column .notice.bad").first.wait_for()
    assert page.locator(f"{VIEWER} .use").first.is_disabled()
    turns.fill("1")
    page.locator(f"{VIEWER} .use:enabled").get_by_text("window").click()
    assert not opened(talked)
    page.wait_for_function("document.querySelector('#memory input').value.startsWith('window')")
    page.wait_for_function("document.querySelector('#window-turns input')?.value === '1'")


def test_a_page_without_a_message_says_what_to_do(chat: Chat) -> None:
    chat.tab("Context")
    chat.page.click("#context [data-compare]")
    chat.page.locator(f"{VIEWER} .difference").get_by_text("Write a message above").wait_for()
    assert chat.page.is_hidden(f"{VIEWER} [data-view=context]"), "there is no turn yet"
    chat.page.fill(f"{VIEWER} .ask textarea", "Hello")
    pick(chat, "tokens", "none")
    column(chat, 0).locator(".rows-given .message").first.wait_for()
    assert chat.errors == []


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_in_both_widths_and_texts_are_never_markup(talked: Chat, width: int) -> None:
    page = talked.page
    page.set_viewport_size({"width": width, "height": 800})
    talked.type("<img src=x onerror='window.hit=1'> <b>bold</b>")
    page.evaluate("window.glassbox.emit('compare', {})")
    pick(talked, "full", "none")
    column(talked, 0)
    shown = column(talked, 1).locator(".rows-given .preview", has_text="<img src=x").count()
    assert shown == 1
    assert page.locator(f"{VIEWER} img").count() == 0 and page.evaluate("window.hit") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelector('#viewer .columns').scrollWidth") <= width
