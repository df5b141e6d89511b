"""Slow connections: nothing that arrives late replaces what was typed or chosen meanwhile."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat
from tests.browser.test_sidebar import entries

_PROMPT, _EVENTS = "#prompt textarea", "**/gradio_api/queue/join*"
_SHOWN = "[data-testid=user]"


@contextmanager
def held(page: Page, pattern: str = _EVENTS, *, lost: bool = False) -> Iterator[None]:
    """Requests to such addresses reach the server only at the end, or never."""
    waiting: list[Route] = []
    over = False

    def hold(route: Route) -> None:
        if over:
            route.continue_()
        else:
            waiting.append(route)

    page.route(pattern, hold)
    yield
    for _ in range(100):  # a busy machine takes its time to ask
        page.wait_for_timeout(100)
        if waiting:
            break
    over = True
    assert waiting, "something was asked for"
    for route in waiting:
        if lost:
            route.abort("connectionreset")
        else:
            route.continue_()


def cookies(chat: Chat) -> dict[str, str]:
    return {cookie["name"]: cookie["value"] for cookie in chat.page.context.cookies()}


def delete(chat: Chat) -> None:
    """Deletes the conversation from elsewhere."""
    address, _, conversation = chat.page.url.partition("?conversation=")
    httpx.delete(f"{address}conversations/{conversation}", cookies=cookies(chat)).raise_for_status()


# Commands


def test_late_list_of_commands_leaves_the_arguments(chat: Chat) -> None:
    page = chat.page
    page.focus(_PROMPT)
    with held(page, "**/tools"):
        page.keyboard.type("/calculator 17*23")
    page.wait_for_timeout(500)
    assert page.input_value(_PROMPT) == "/calculator 17*23"
    expect(page.locator("#commands li")).to_have_count(0)
    page.keyboard.press("Enter")
    chat.wait_end()
    assert chat.texts("user") == ["/calculator 17*23"]


def test_late_list_of_commands_is_for_what_is_typed_by_then(chat: Chat) -> None:
    page = chat.page
    box = page.locator(_PROMPT)
    with held(page, "**/tools"):
        box.press_sequentially("/c")
        page.wait_for_timeout(100)
        box.press_sequentially("lo")
    expect(page.locator("#commands li b")).to_have_text(["/clock"])
    page.keyboard.press("Enter")
    assert page.input_value(_PROMPT) == "/clock "


def test_list_of_commands_does_not_outlive_its_text(chat: Chat) -> None:
    page = chat.page
    page.focus(_PROMPT)
    page.keyboard.type("/clock")
    expect(page.locator("#commands li")).to_have_count(1)
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#prompt textarea').value === ''")
    page.keyboard.press("Tab")
    assert page.input_value(_PROMPT) == ""


# The prompt, while a message is sent


@pytest.mark.parametrize("keys", ["", "Shift+Enter", "Space"])
def test_text_typed_while_a_message_is_sent_stays(chat: Chat, keys: str) -> None:
    page = chat.page
    chat.type("endless")
    with held(page):
        with page.expect_request(_EVENTS):
            page.press(_PROMPT, "Enter")
        if keys:
            page.keyboard.press(keys)
        page.keyboard.type("next")
    chat.wait_token()
    assert page.input_value(_PROMPT).strip() == "next"
    chat.stop()
    assert chat.texts("user") == ["endless"]


@pytest.mark.parametrize("text", ["other", "hello again", "hell"])
def test_text_that_replaced_a_message_on_its_way_stays(chat: Chat, text: str) -> None:
    page = chat.page
    chat.type("hello")
    with held(page):
        with page.expect_request(
            lambda request: "queue/join" in request.url and '"hello"' in (request.post_data or "")
        ):
            page.press(_PROMPT, "Enter")
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.type(text)
    chat.wait_end()
    assert page.input_value(_PROMPT) == text
    assert chat.texts("user") == ["hello"]


def test_message_is_sent_once_and_the_prompt_is_empty_afterwards(chat: Chat) -> None:
    page = chat.page
    for text in ("hello", "hello", "line one\nline two \U0001f600"):
        chat.type(text)
        with held(page):
            page.press(_PROMPT, "Enter")
            page.press(_PROMPT, "Enter")
        page.wait_for_function("document.querySelector('#prompt textarea').value === ''")
        chat.wait_end()
    assert len(chat.texts("user")) == 3


def test_refused_message_and_what_was_typed_after_it_stay(chat: Chat) -> None:
    page = chat.page
    chat.send("hello")
    chat.wait_end()
    delete(chat)
    chat.type("two")
    with held(page):
        with page.expect_request(_EVENTS):
            page.press(_PROMPT, "Enter")
        page.keyboard.type(" and three")
    chat.wait_toast("Not sent")
    assert page.input_value(_PROMPT) == "two and three"
    chat.wait_next_end(lambda: page.press(_PROMPT, "Enter"))
    assert (chat.texts("user"), page.input_value(_PROMPT)) == (["two and three"], "")


def test_lost_message_and_what_was_typed_after_it_stay(chat: Chat) -> None:
    page = chat.page
    chat.type("two")
    with held(page, lost=True):
        with page.expect_request(_EVENTS):
            page.press(_PROMPT, "Enter")
        page.keyboard.type(" and three")
    page.wait_for_timeout(500)
    assert page.input_value(_PROMPT) == "two and three"


def test_late_undo_puts_the_message_before_what_was_typed(chat: Chat) -> None:
    page = chat.page
    chat.send("hello")
    chat.wait_end()
    with held(page):
        page.get_by_label("Undo").last.click()
        page.focus(_PROMPT)
        page.keyboard.type("next")
    page.wait_for_selector("#intro", state="visible")
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'hello\\nnext'")


def test_edit_that_is_refused_is_put_into_the_prompt(chat: Chat) -> None:
    page = chat.page
    chat.send("hello")
    chat.wait_end()
    page.hover(f"#chat {_SHOWN} >> nth=0")
    page.get_by_label("Edit").first.click()
    page.fill("#chat textarea", "other words")
    delete(chat)
    chat.type("next")
    page.get_by_label("Submit").click()
    chat.wait_toast("Not sent")
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'other words\\nnext'")


def test_example_prompt_gives_back_what_was_being_written(chat: Chat) -> None:
    page = chat.page
    chat.type("half a thought")
    page.click("[data-prompt='/calculator 17*23']")
    chat.wait_end()
    assert chat.texts("user") == ["/calculator 17*23"]
    assert page.input_value(_PROMPT) == "half a thought"


# The fields above the conversation


@pytest.fixture
def made(chat: Chat) -> str:
    """The address of a conversation with another backend, memory mode and system prompt than the defaults."""
    page = chat.page
    chat.choose("backend", "Parrot")
    chat.choose("memory", "window")
    page.click("#show-options")
    expect(page.locator("#max-tokens")).to_be_hidden()
    page.fill("#system-prompt textarea", "Be brief.")
    chat.send("hello")
    chat.wait_end()
    return page.url


def test_choices_made_while_a_page_loads_stay(chat: Chat, made: str) -> None:
    page = chat.page.context.new_page()
    with held(page):
        page.goto(made)
        page.click("#show-options")
        page.fill("#max-tokens input", "77")
        page.click("#memory input")
        page.get_by_role("option", name="none").click()
        page.fill(_PROMPT, "a draft")
    expect(page.locator(_SHOWN).first).to_have_text("hello")
    expect(page.locator("#backend input")).to_have_value(re.compile("Parrot"))
    expect(page.locator("#system-prompt textarea")).to_have_value("Be brief.")
    expect(page.locator("#window-turns")).to_be_hidden()  # a parameter of the mode that is not chosen any more
    assert page.input_value("#memory input").startswith("none")
    assert page.input_value("#max-tokens input") == "77"
    assert page.input_value(_PROMPT) == "a draft"


def test_backend_and_key_chosen_while_a_page_loads_stay(chat: Chat, made: str) -> None:
    page = chat.page.context.new_page()
    with held(page):
        page.goto(made)
        page.click("#show-options")
        page.fill("#system-prompt textarea", "Be long.")
        page.click("#backend input")
        page.get_by_role("option", name="Keyed").click()
    expect(page.locator(_SHOWN).first).to_have_text("hello")
    expect(page.locator("#key label")).to_contain_text("Your key for Keyed")
    expect(page.locator("#memory input")).to_have_value(re.compile("window"))
    assert page.input_value("#backend input").startswith("Keyed")
    assert page.input_value("#system-prompt textarea") == "Be long."


def test_choices_made_while_a_conversation_opens_stay(chat: Chat, made: str) -> None:
    page = chat.page
    page.click("#sidebar .new")
    page.wait_for_selector("#intro", state="visible")
    chat.choose("memory", "summary")
    with held(page):
        entries(chat).first.locator("a").click()
        page.fill("#system-prompt textarea", "Be long.")
    expect(page.locator(f"#chat {_SHOWN}").last).to_have_text("hello")
    expect(page.locator("#memory input")).to_have_value(re.compile("window"))
    assert page.input_value("#system-prompt textarea") == "Be long."
    page.reload()
    expect(page.locator("#system-prompt textarea")).to_have_value("Be brief.")


def test_mode_chosen_while_a_compared_one_is_taken_stays(chat: Chat, made: str) -> None:
    page = chat.page
    page.evaluate("window.glassbox.emit('compare', {})")
    for mode in ("window", "full"):
        page.click(f"#viewer .modes [data-mode={mode}]")
    use = page.locator("#viewer .uses button").last
    expect(use).to_be_enabled()
    with held(page):
        use.click()
        chat.choose("memory", "none")
    page.wait_for_timeout(500)
    assert page.input_value("#memory input").startswith("none")


def test_key_typed_while_another_is_tried_stays(chat: Chat) -> None:
    page = chat.page
    chat.choose("backend", "Keyed")
    page.fill("#key input", "the-first-key-of-mine")
    with held(page):
        page.click("#use-key")
        page.fill("#key input", "the-second-key-of-mine")
    chat.wait_toast("Your key was saved")
    page.wait_for_timeout(300)
    assert page.input_value("#key input") == "the-second-key-of-mine"
    page.click("#use-key")
    page.wait_for_function("document.querySelector('#key input').value === ''")


def test_message_sent_before_the_page_has_loaded_is_sent_with_the_defaults(app: RunningApp, chat: Chat) -> None:
    page = chat.page.context.new_page()
    with held(page):
        page.goto(app.url)
        page.fill(_PROMPT, "hello")
        page.wait_for_timeout(300)
        page.press(_PROMPT, "Enter")
    expect(page.locator("#chat [data-testid=bot]").first).to_be_visible()
    assert page.locator(".toast-wrap").get_by_text("Not sent").count() == 0
