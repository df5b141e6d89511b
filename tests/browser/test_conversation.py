"""A conversation with the real model, from the first token to the last."""

import random
from collections.abc import Callable

import httpx
import pytest

from tests.app_process import REPLY_TOKENS, RunningApp
from tests.browser.conftest import Chat


@pytest.fixture(scope="module")
def app(model_app: RunningApp) -> RunningApp:
    return model_app


LONG = "Write a very long story about a dragon, with many chapters."


def test_reply_streams_and_stays(chat: Chat) -> None:
    chat.send(LONG)
    chat.wait_token()
    assert chat.phase == "streaming"
    before = len(chat.live())
    chat.page.wait_for_function(f"document.querySelector('#live-reply').textContent.length > {before + 40}")
    chat.stop()
    assert chat.texts("user") == [LONG]
    assert len(chat.texts("bot")[0]) > before
    assert chat.phase == "stopped"
    assert chat.errors == []


def test_address_names_the_conversation_and_its_export_has_both_messages(chat: Chat) -> None:
    chat.send("Say hello.")
    chat.wait_end()
    conversation_id = chat.page.url.partition("?conversation=")[2]
    cookies = {c["name"]: c["value"] for c in chat.page.context.cookies()}
    exported = httpx.get(chat.page.url.partition("?")[0] + f"conversations/{conversation_id}", cookies=cookies).json()
    assert [m["role"] for m in exported["messages"]] == ["user", "assistant"]
    assert exported["messages"][0]["content"] == "Say hello."


def test_panel_tells_the_figures_and_what_the_model_was_given(chat: Chat) -> None:
    chat.send("Say hello.")
    chat.wait_end()
    assert chat.phase == "complete"
    panel = chat.page.text_content("#agent-state") or ""
    assert "You are a helpful assistant." in panel and f"of {4096 - REPLY_TOKENS:,} tokens" in panel
    assert float(chat.page.inner_text("[data-figure=ttft]").split()[0]) > 0
    assert int(chat.page.inner_text("[data-figure=tokens]").replace(",", "")) > 0
    assert 1 <= chat.page.locator("#timeline .bars > li").count() <= 3, "two of the three steps may be wrappers"


def test_twenty_stops_at_random_moments_leave_a_page_that_works(chat: Chat) -> None:
    moments = random.Random(7)
    for _ in range(20):
        chat.send(LONG)
        chat.page.wait_for_timeout(moments.uniform(0, 600))
        chat.stop()
    chat.send("Say hello.")
    chat.wait_end()
    assert len(chat.texts("user")) >= 14  # the latest thirty messages are drawn


def test_reload_in_mid_reply_finds_it_still_growing(chat: Chat) -> None:
    chat.send(LONG)
    chat.wait_token()
    before = chat.live()
    chat.page.reload()
    chat.wait_token()
    assert chat.live().startswith(before[:40])
    length = len(chat.live())
    chat.page.wait_for_function(f"document.querySelector('#live-reply').textContent.length > {length + 20}")
    assert chat.texts("user") == [LONG]
    chat.stop()
    chat.page.reload()
    chat.page.wait_for_selector("#chat [data-testid=bot]")
    assert chat.texts("bot")[0].startswith(before[:40])
    chat.page.wait_for_selector("#agent-state [data-phase=stopped]")


def test_second_page_follows_the_same_run(chat: Chat, new_chat: Callable[..., Chat]) -> None:
    chat.send(LONG)
    chat.wait_token()
    other = new_chat(chat.page.url, chat)
    other.wait_token()
    other.stop()
    chat.wait_end()
    assert chat.texts("bot") == other.texts("bot")


def test_four_pages_stream_at_once(new_chat: Callable[..., Chat]) -> None:
    chats = [new_chat() for _ in range(4)]
    for chat in chats:
        chat.send(LONG)
    for chat in chats:
        chat.wait_token()
    assert [chat.phase for chat in chats] == ["streaming"] * 4
    lengths = [len(chat.live()) for chat in chats]
    for chat, length in zip(chats, lengths, strict=True):
        chat.page.wait_for_function(f"document.querySelector('#live-reply').textContent.length > {length + 20}")
    for chat in chats:
        chat.stop()


def test_backend_and_memory_are_swapped_in_mid_conversation(chat: Chat) -> None:
    chat.send("Say hello.")
    chat.wait_end()
    chat.choose("backend", "Scripted tour")
    chat.send("tour")
    chat.wait_end()
    assert "What you are looking at" in chat.reply()
    assert "Say hello." in (chat.page.text_content("#context .given") or "")
    chat.choose("memory", "none")
    chat.choose("backend", "SmolLM2 135M")
    chat.send("And now?")
    chat.wait_end()
    assert "Say hello." not in (chat.page.text_content("#context .given") or "")
    assert "Left out: 6 messages" in (chat.page.text_content("#context") or "")
    chat.page.reload()
    chat.page.wait_for_selector("#chat [data-testid=bot]")
    assert chat.page.input_value("#memory input").startswith("none")


def test_another_visitor_cannot_open_it(chat: Chat, new_chat: Callable[..., Chat], app: RunningApp) -> None:
    chat.send("My secret is 12345.")
    chat.wait_end()
    stranger = new_chat(chat.page.url)
    stranger.page.wait_for_selector(".toast-wrap >> text=not yours")
    assert "12345" not in stranger.page.inner_text("body")
