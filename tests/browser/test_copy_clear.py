"""Copy copies a message as it was written; Clear asks before it deletes the conversation."""

import httpx
import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Chat
from tests.browser.test_sidebar import menu

_MARKDOWN = "A **bold** `List<String>` & <b>, `$5`:\n\n```html\n<p>\n```\n\n1. \\(x^2\\)\n2. __init__  \nend"


@pytest.fixture
def chat(reused_chat: Chat) -> Chat:
    reused_chat.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    return reused_chat


def copied(chat: Chat, button: Locator) -> str:
    chat.page.evaluate("navigator.clipboard.writeText('nothing')")
    button.hover(force=True)
    button.click()
    expect(button).to_have_attribute("title", "Copied")
    return str(chat.page.evaluate("navigator.clipboard.readText()"))


def exported(chat: Chat) -> httpx.Response:
    address, _, conversation = chat.page.url.partition("?conversation=")
    cookies = {cookie["name"]: cookie["value"] for cookie in chat.page.context.cookies()}
    return httpx.get(f"{address}conversations/{conversation}", cookies=cookies)


def rows(chat: Chat) -> Locator:
    """The rows of buttons below the parts of messages."""
    return chat.page.locator("#chat .message-buttons")


def copy_of(row: Locator) -> Locator:
    return row.locator("button").first


def imported(chat: Chat, *messages: dict[str, object]) -> None:
    chat.show([{"role": "user", "content": "a question"}, *messages])


def test_copy_after_stop_copies_the_reply(chat: Chat) -> None:
    page = chat.page
    chat.send("endless")
    page.wait_for_function("document.querySelector('#live-reply').textContent.includes(' 20 ')")
    chat.stop()
    expect(page.locator("#chat [data-testid=bot]").last).to_have_text("Stopped by you")
    reply = exported(chat).json()["messages"][-1]["content"]
    assert " 20 " in reply
    assert copied(chat, copy_of(rows(chat).last)) == reply
    expect(rows(chat).nth(1)).to_be_hidden()  # below the text, above the note
    page.reload()
    page.wait_for_selector("#chat .turn", state="attached")
    assert copied(chat, copy_of(rows(chat).last)) == reply


@pytest.mark.parametrize("standing", ["whole", "interrupted", "stopped", "failed"])
def test_copy_copies_the_source_without_notes_and_parts(chat: Chat, standing: str) -> None:
    part = {"kind": "thinking", "text": "a thought", "start": 1.0, "end": 2.0}
    note = None if standing == "whole" else "A *note* about it"
    imported(
        chat,
        {"role": "assistant", "content": "An earlier reply."},
        {"role": "user", "content": "2*3*4 <b> __x__"},
        {"role": "assistant", "content": _MARKDOWN, "standing": standing, "note": note, "parts": [part]},
    )
    assert copied(chat, copy_of(rows(chat).last)) == _MARKDOWN
    assert copied(chat, copy_of(rows(chat).nth(1))) == "An earlier reply."
    assert copied(chat, copy_of(rows(chat).nth(2))) == "2*3*4 <b> __x__"


def test_copy_works_where_the_browser_has_no_clipboard(chat: Chat) -> None:
    """A page that came over plain HTTP from another machine."""
    page = chat.page
    imported(chat, {"role": "assistant", "content": _MARKDOWN})
    page.evaluate("navigator.clipboard.writeText('nothing')")
    page.evaluate("window.real = navigator.clipboard")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })")
    copy_of(rows(chat).last).click()
    expect(copy_of(rows(chat).last)).to_have_attribute("title", "Copied")
    assert page.evaluate("real.readText()") == _MARKDOWN
    page.evaluate("delete navigator.clipboard")


def test_reply_without_a_text_has_nothing_to_copy(chat: Chat) -> None:
    imported(chat, {"role": "assistant", "content": "", "standing": "failed", "note": "The model is gone."})
    expect(copy_of(rows(chat).last)).to_be_hidden()


def test_clear_asks_first_and_keeps(chat: Chat) -> None:
    page, sure = chat.page, chat.page.locator(".sure")
    chat.send("hello")
    chat.wait_end()
    page.click("#clear")
    expect(sure).to_have_text("Delete permanently?DeleteKeep")
    expect(sure.get_by_text("Keep")).to_be_focused()
    page.wait_for_timeout(500)
    assert exported(chat).status_code == 200
    page.keyboard.press("Enter")
    expect(sure).to_be_hidden()
    expect(page.locator("#clear")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(sure).to_be_hidden()
    assert exported(chat).status_code == 200 and chat.texts("user") == ["hello"]


def test_clear_is_confirmed_by_the_keyboard_and_asks_as_delete_does(chat: Chat) -> None:
    page, sure = chat.page, chat.page.locator(".sure")
    chat.send("hello")
    chat.wait_end()
    menu(chat, 0).get_by_text("Delete").click()
    asked = page.locator("#sidebar .menu").inner_text().split("\n")
    page.locator("#sidebar .menu").get_by_text("Keep").click()
    page.focus("#clear")
    page.keyboard.press("Enter")
    assert sure.inner_text().split("\n") == asked
    conversation = exported(chat)
    page.keyboard.press("Shift+Tab")
    expect(sure.get_by_text("Delete", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_selector("#intro", state="visible")
    expect(page.locator("#prompt textarea")).to_be_focused()
    address = str(conversation.url)
    assert httpx.get(address, headers=conversation.request.headers).status_code == 404


def test_question_about_one_conversation_is_not_asked_of_another(chat: Chat) -> None:
    page = chat.page
    chat.send("hello")
    chat.wait_end()
    page.click("#clear")
    page.click("#sidebar .new")
    page.wait_for_selector("#intro", state="visible")
    expect(page.locator(".sure")).to_be_hidden()
    page.click("#clear")
    expect(page.locator(".sure")).to_be_hidden()


def test_clear_asks_for_a_conversation_whose_messages_were_all_taken_back(chat: Chat) -> None:
    page = chat.page
    chat.send("hello")
    chat.wait_end()
    page.get_by_label("Undo").last.click()
    page.wait_for_selector("#intro", state="visible")
    page.click("#clear")
    expect(page.locator(".sure")).to_be_visible()
