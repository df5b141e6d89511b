"""Choosing a model on the page, in a wide and a narrow window."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat
from tests.house import asked_for_replies
from tests.providers import OpenAIServer, Reply

CONFIG = """
[[backends]]
name = "Many"
kind = "openai"
base_url = "{url}"
models = ["first", "second", "gone"]
ignores = {{ second = ["temperature"] }}

[[backends]]
name = "All"
kind = "openai"
base_url = "{url}"
model = "*"

[[backends]]
name = "Script"
kind = "scripted"
options = {{ speed = 100 }}
"""


_FITS = """() => {
    const box = (id) => document.querySelector(id).getBoundingClientRect();
    const beside = (a, b) => a.right <= b.left + 1 || b.right <= a.left + 1;
    const apart = (a, b) => beside(a, b) || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
    const boxes = ['#backend', '#model', '#memory'].map(box);
    return document.documentElement.scrollWidth <= innerWidth
        && boxes.every((box) => box.width > 64 && box.left >= 0 && box.right <= innerWidth)
        && boxes.every((a, i) => boxes.slice(i + 1).every((b) => apart(a, b)));
}"""


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(Reply(["I am ", "a model."])) as server:
        able = {"architecture": {"input_modalities": ["text", "image"]}, "supports_reasoning": True}
        more = [{"id": f"other-{n:02}"} for n in range(20)]
        server.models = [
            {"id": "first", "context_length": 4096},
            {"id": "second", "context_length": 65536, **able},
            *more,
        ]
        yield server


@pytest.fixture(scope="module")
def app(server: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    with RunningApp(tmp_path_factory.mktemp("models"), CONFIG.format(url=server.base_url)) as app:
        yield app


@pytest.fixture(params=[1280, 390], ids=["wide", "narrow"])
def chat(server: OpenAIServer, new_chat: Callable[..., Chat], request: pytest.FixtureRequest) -> Chat:
    server.requests.clear()
    return new_chat(width=request.param)


def about(chat: Chat, text: str) -> None:
    chat.page.wait_for_function("text => document.querySelector('#about p').textContent.includes(text)", arg=text)


def fits(chat: Chat) -> bool:
    """Whether nothing of the header is wider than the window, or covers its neighbour."""
    return bool(chat.page.evaluate(_FITS))


def test_a_model_is_chosen_used_and_kept(chat: Chat, server: OpenAIServer, tmp_path: Path) -> None:
    page = chat.page
    assert page.input_value("#model input") == "first"
    about(chat, "Model first, context of 4,096 tokens.")
    assert fits(chat)
    chat.choose("model", "second")
    about(chat, "Model second, context of 65,536 tokens, thinking, image input.")
    page.click("#show-options")
    expect(page.locator("#options .unused")).to_have_text("Many does not use: temperature.")
    page.keyboard.press("Escape")
    chat.send("Who are you?")
    chat.wait_end()
    assert chat.texts("bot")[-1] == "I am a model."
    assert "Many (second)" in (page.text_content("#agent-state") or "")
    chat.open(page.url)
    page.wait_for_function("document.querySelector('#model input')?.value === 'second'")
    chat.send("Still?")
    chat.wait_end()
    assert [request.body["model"] for request in asked_for_replies(server)] == ["second", "second"]
    assert not chat.errors


def test_the_dropdown_is_there_only_where_there_is_a_choice(chat: Chat, server: OpenAIServer) -> None:
    page = chat.page
    page.click("#model input")
    options = page.get_by_role("option").all_text_contents()
    starts = ["first", "second", "gone · Not available"]
    assert [option.startswith(start) for option, start in zip(options, starts, strict=True)] == [True] * 3
    page.keyboard.press("Escape")
    chat.choose("backend", "Script")
    page.wait_for_selector("#model", state="detached")
    about(chat, "a fixed script")
    chat.choose("backend", "All")
    page.wait_for_selector("#model input", state="visible")
    page.fill("#model input", "other-1")  # a long list is searched by typing
    page.get_by_role("option", name="other-17").click()
    about(chat, "Model other-17")
    chat.send("Hi")
    chat.wait_end()
    assert [request.body["model"] for request in asked_for_replies(server)] == ["other-17"]
    assert fits(chat) and not chat.errors


def test_a_model_that_is_gone_says_so_before_anything_is_sent(chat: Chat, server: OpenAIServer) -> None:
    chat.choose("model", "gone")
    about(chat, "Many is not ready: its server has no model 'gone'; it has ")
    chat.send("Hi")
    chat.wait_end()
    assert "has no model 'gone'" in (chat.page.text_content("#chat") or "")
    chat.choose("model", "first")
    about(chat, "Many is ready.")
    assert asked_for_replies(server) == []


def test_the_keyboard_chooses_a_model(chat: Chat) -> None:
    page = chat.page
    assert page.get_by_label("Version", exact=True).count() == 1
    page.focus("#model input")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("[role=option]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#model input').value === 'second'")
    about(chat, "Model second")


def test_memory_modes_are_compared_for_the_chosen_model(chat: Chat) -> None:
    page = chat.page
    chat.choose("model", "second")
    about(chat, "Model second")
    chat.type("Hello")
    with page.expect_request(lambda request: request.url.endswith("/context")) as asked:
        page.evaluate("window.glassbox.emit('compare', {})")
    assert (asked.value.post_data_json["backend"], asked.value.post_data_json["model"]) == ("Many", "second")
