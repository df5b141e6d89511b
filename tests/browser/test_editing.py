"""Retry, Undo, Edit and Clear, and the conversation's earlier part."""

from collections.abc import Callable

import httpx
import pytest

from tests.app_process import RunningApp
from tests.browser.conftest import Chat


@pytest.fixture
def scripted(reused_chat: Chat) -> Chat:
    """A conversation of two short turns with the scripted backend."""
    for text in ("one", "two"):
        reused_chat.send(text)
        reused_chat.wait_end()
    return reused_chat


def test_retry_asks_the_last_message_again(scripted: Chat) -> None:
    scripted.wait_next_end(scripted.page.get_by_label("Retry").last.click)
    assert scripted.texts("user") == ["one", "two"]
    assert len(scripted.texts("bot")) == 2


def test_undo_takes_the_last_message_back_into_the_prompt(scripted: Chat) -> None:
    scripted.page.get_by_label("Undo").last.click()
    scripted.page.wait_for_function("document.querySelector('#prompt textarea').value === 'two'")
    assert scripted.texts("user") == ["one"]


def test_edit_asks_in_other_words_and_drops_what_came_after(scripted: Chat) -> None:
    scripted.page.hover("#chat [data-testid=user] >> nth=0")
    scripted.page.get_by_label("Edit").first.click()
    scripted.page.fill("#chat textarea", "<b>other</b> & words")
    scripted.wait_next_end(scripted.page.get_by_label("Submit").click)
    assert scripted.texts("user") == ["<b>other</b> & words"]
    assert len(scripted.texts("bot")) == 1


def test_clear_deletes_the_conversation_everywhere(scripted: Chat) -> None:
    address = scripted.page.url
    scripted.clear()
    assert scripted.texts("user") == []
    assert "conversation" not in scripted.page.url
    conversation_id = address.partition("?conversation=")[2]
    cookies = {c["name"]: c["value"] for c in scripted.page.context.cookies()}
    gone = httpx.get(address.partition("?")[0] + f"conversations/{conversation_id}", cookies=cookies)
    assert gone.status_code == 404


def test_only_the_latest_messages_are_drawn_and_earlier_ones_on_demand(
    app: RunningApp, new_chat: Callable[..., Chat]
) -> None:
    messages = [{"role": ("user", "assistant")[i % 2], "content": f"message {i}"} for i in range(70)]
    made = httpx.post(app.url + "conversations", json={"messages": messages}).json()
    chat = new_chat(f"{app.url}?conversation={made['conversation_id']}")
    chat.page.wait_for_selector("#chat [data-testid=bot]")
    assert chat.texts("user")[0] == "message 40"
    chat.page.click("#earlier")
    chat.page.wait_for_function("document.querySelectorAll('#chat [data-testid=user]').length === 30")
    assert chat.texts("user")[0] == "message 10"
    chat.page.get_by_label("Undo").last.click()
    chat.page.wait_for_function("document.querySelector('#prompt textarea').value === 'message 68'")
