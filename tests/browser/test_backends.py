"""Backends on the page: swapped in mid-conversation, their health, a visitor's own key, options, faults at a click.

The providers are servers on 127.0.0.1 that speak the real protocols.
"""

import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from playwright.sync_api import APIResponse, Route, expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat
from tests.providers import BAD_KEY, Drop, GeminiServer, OpenAIServer, Reply, rate_limit

CANARY = "sk-canary-4f7a91c2e8"

CONFIG = """
[limits]
reply_tokens = 60

[[backends]]
name = "Local"
kind = "local"

[[backends]]
name = "Script"
kind = "scripted"
options = {{ speed = 20 }}
timeout = 2

[[backends]]
name = "Gemini"
kind = "gemini"
model = "test-model"
base_url = "{gemini}"
key = "TEST_GEMINI_KEY"

[[backends]]
name = "Thinker"
kind = "openai"
model = "test-model"
base_url = "{openai}"
thinking = "switch"

[[backends]]
name = "Rate limited"
kind = "openai"
model = "test-model"
base_url = "{openai}"

[[backends]]
name = "Keyed"
kind = "openai"
model = "test-model"
base_url = "{openai}"
key = "TEST_OPENAI_KEY"

[[backends]]
name = "Community"
kind = "langchain"
class = "langchain_community.chat_models.baichuan:ChatBaichuan"
options = {{ baichuan_api_base = "{openai}/chat/completions", streaming = true }}
key = "TEST_BAICHUAN_KEY"
key_field = "baichuan_api_key"

[[backends]]
name = "Backed up"
kind = "openai"
model = "test-model"
base_url = "http://127.0.0.1:9/v1"
fallback = "Script"
"""


@dataclass
class House:
    app: RunningApp
    openai: OpenAIServer
    gemini: GeminiServer


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with OpenAIServer() as openai, GeminiServer() as gemini:
        config = CONFIG.format(openai=openai.base_url, gemini=gemini.url)
        with RunningApp(tmp_path_factory.mktemp("house"), config, TEST_BAICHUAN_KEY="of the operator") as app:
            yield House(app, openai, gemini)


@pytest.fixture
def chat(house: House, open_chat: Callable[..., Chat]) -> Chat:
    house.openai.answers = house.gemini.answers = [Reply()]
    house.openai.requests.clear()
    return open_chat(house.app.url)


def about(chat: Chat, text: str) -> None:
    """Waits until the line about the chosen backend says so."""
    chat.page.wait_for_function("text => document.querySelector('#about p').textContent.includes(text)", arg=text)


def use_key(chat: Chat, key: str) -> None:
    chat.page.fill("#key input", key)
    chat.page.click("#use-key")
    chat.page.wait_for_function("document.querySelector('#key input').value === ''")


def last_call(house: House) -> Any:
    """The last request for a reply; other requests ask for the list of models."""
    return [request for request in house.openai.requests if request.method == "POST"][-1]


def ask(chat: Chat, text: str) -> str:
    chat.send(text)
    chat.wait_end()
    return chat.texts("bot")[-1]


def test_every_kind_answers_in_one_conversation_with_the_history_carried_over(chat: Chat, house: House) -> None:
    house.openai.answers = [Reply(text=("I", " thought."), thinking=("Let me", " think."))]
    house.gemini.answers = [Reply(text=("I", " am Gemini."), thinking=("Hm.",))]
    assert ask(chat, "Say hello.")
    chat.choose("backend", "Script")
    assert "observation" in ask(chat, "tool failure")
    chat.choose("backend", "Thinker")
    assert ask(chat, "And you?") == "I thought."
    chat.choose("backend", "Gemini")
    use_key(chat, "a-key")
    assert ask(chat, "And Gemini?") == "I am Gemini."
    chat.choose("backend", "Community")
    house.openai.answers = [Reply(text=("I am", " many."))]
    assert ask(chat, "And the community?") == "I am many."
    chat.choose("backend", "Local")
    assert ask(chat, "And again you?")

    given = [(m["role"], m["content"]) for m in last_call(house).body["messages"]]
    assert [role for role, _ in given] == ["system", *["user", "assistant"] * 4, "user"]
    received = "\n".join(text for _, text in given)
    for earlier in ("Say hello.", "tool failure", "observation", "And you?", "I thought.", "I am Gemini."):
        assert earlier in received
    assert "Let me" not in received and "Hm." not in received, "thinking is no part of the history"
    assert len(chat.texts("user")) == 6 and not chat.errors


def test_the_dropdown_says_why_a_backend_is_not_ready_and_that_it_is_again(chat: Chat, house: House) -> None:
    chat.choose("backend", "Backed up")
    about(chat, "cannot be reached")
    chat.page.click("#backend input")
    labels = chat.page.get_by_role("option").all_text_contents()
    assert any(label.startswith("Gemini · Needs a key") for label in labels)
    assert any(label.startswith("Backed up · Unreachable") for label in labels)
    chat.page.click("#prompt textarea")
    chat.choose("backend", "Rate limited")  # which no other test uses: the limit outlasts this one
    house.openai.answers = [rate_limit(40)]
    ask(chat, "Hello")
    about(chat, "rate limited until")


def test_a_fallback_answers_and_is_said_aloud(chat: Chat) -> None:
    chat.choose("backend", "Backed up")
    ask(chat, "Hello")
    drawn = chat.page.text_content("#chat") or ""
    assert "a script, not a model" in drawn and "Script answered instead of Backed up" in drawn


def test_a_refused_key_is_forgotten_and_a_good_one_can_be_taken_back(chat: Chat, house: House) -> None:
    chat.choose("backend", "Keyed")
    about(chat, "it needs a key")
    expect(chat.page.locator("#key input")).to_be_focused()  # else it may take the focus before Enter
    chat.type("Hello")
    chat.page.press("#prompt textarea", "Enter")
    chat.page.get_by_text("Not sent.").wait_for()
    assert chat.page.input_value("#prompt textarea") == "Hello"
    house.openai.listing = BAD_KEY
    use_key(chat, "wrong")
    chat.page.get_by_text("rejected this key").wait_for()
    about(chat, "it needs a key")
    house.openai.listing = None
    use_key(chat, "right")
    about(chat, "It uses your key.")
    assert ask(chat, "Hello") == "Hello there!"
    assert last_call(house).headers["authorization"] == "Bearer right"
    chat.page.click("#forget-key")
    about(chat, "it needs a key")


def test_an_answer_that_comes_late_takes_nothing_back(chat: Chat) -> None:
    late: list[tuple[Route, APIResponse]] = []

    def hold(route: Route) -> None:
        if late:
            route.continue_()
        else:
            late.append((route, route.fetch()))

    chat.page.wait_for_timeout(3100)  # who opens the dropdown sooner sees what is known
    chat.page.route("**/backends", hold)
    chat.choose("backend", "Keyed")
    use_key(chat, "right")
    about(chat, "It uses your key.")
    ((route, answer),) = late
    with chat.page.expect_event("requestfinished"):
        route.fulfill(response=answer)
    chat.page.wait_for_timeout(300)
    assert "It uses your key." in (chat.page.text_content("#about p") or "")


def test_a_key_stays_as_it_is_typed_but_goes_with_its_backend(chat: Chat) -> None:
    chat.choose("backend", "Keyed")
    chat.page.fill("#key input", "half a ke")
    chat.page.click("#backend input")
    chat.page.click("#key input")
    chat.page.wait_for_timeout(500)
    assert chat.page.input_value("#key input") == "half a ke"
    chat.choose("backend", "Gemini")
    chat.page.get_by_label("Your key for Gemini").wait_for()
    assert chat.page.input_value("#key input") == ""


def test_a_key_is_nowhere_but_in_the_request(chat: Chat, house: House) -> None:
    house.openai.answers = [BAD_KEY, Reply()]  # its body echoes the header
    chat.choose("backend", "Keyed")
    use_key(chat, CANARY)
    about(chat, "It uses your key.")
    ask(chat, "First")
    assert "rejected the key" in (chat.page.text_content("#chat") or "")
    use_key(chat, CANARY)
    assert ask(chat, "Second") == "Hello there!"
    assert last_call(house).headers["authorization"] == f"Bearer {CANARY}"

    page = chat.page
    storage = page.evaluate(
        "async () => JSON.stringify("
        "[{...localStorage}, {...sessionStorage}, document.cookie, await indexedDB.databases()])"
    )
    conversation = page.url.rpartition("=")[2]
    answers = [page.request.get(house.app.url + path) for path in ("backends", f"conversations/{conversation}")]
    seen = [page.content(), storage, *(a.text() for a in answers), house.app.output()]
    with sqlite3.connect(house.app.data / "glassbox.db") as db:
        seen += [zlib.decompress(row[0]).decode() for row in db.execute("select record from runs")]
    assert "authentication" in "".join(seen), "the refused run is recorded"
    files = b"".join(file.read_bytes() for file in house.app.data.rglob("*") if file.is_file())
    assert CANARY not in "".join(seen) and CANARY.encode() not in files

    states = {backend["name"]: backend["key"] for backend in httpx.get(house.app.url + "backends").json()}
    assert states["Keyed"] == "missing", "a key is its visitor's alone"


def test_options_reach_the_model_and_stay_with_the_conversation(chat: Chat, house: House) -> None:
    chat.choose("backend", "Thinker")
    chat.page.click("#show-options")
    chat.page.fill("#system-prompt textarea", "Answer in rhymes.")
    chat.page.fill("#temperature input", "0.3")
    chat.page.fill("#max-tokens input", "40")
    chat.page.press("#max-tokens input", "Tab")
    chat.page.uncheck("#thinking input")
    ask(chat, "Hello")
    body = last_call(house).body
    chat.page.click("#options .close")
    chat.tab("Context")
    chat.page.click("#context [data-context]")
    chat.page.get_by_role("tab", name="Prompt").click()
    expect(chat.page.locator("#viewer-prompt .notice")).to_contain_text("the request as it was sent")
    assert json.loads(chat.page.locator("#viewer-prompt pre").inner_text()) == body
    chat.page.keyboard.press("Escape")
    assert body["messages"][0] == {"role": "system", "content": "Answer in rhymes."}
    assert (body["temperature"], body["max_tokens"]) == (0.3, 40)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    chat.open(chat.page.url)
    assert chat.page.input_value("#system-prompt textarea") == "Answer in rhymes."
    assert chat.page.input_value("#temperature input") == "0.3"
    assert chat.page.input_value("#max-tokens input") == "40"
    assert not chat.page.is_checked("#thinking input")
    chat.choose("backend", "Script")
    chat.page.click("#show-options")
    unused = "Script does not use: system prompt, temperature, max reply length."
    expect(chat.page.locator("#options .unused")).to_have_text(unused)
    expect(chat.page.locator("#temperature")).to_be_hidden()
    expect(chat.page.locator("#thinking")).to_be_hidden()


def test_an_impossible_option_is_refused_and_the_message_kept(chat: Chat) -> None:
    chat.page.click("#show-options")
    chat.page.fill("#max-tokens input", "999999")
    chat.page.press("#max-tokens input", "Tab")
    chat.type("Hello")
    chat.page.press("#prompt textarea", "Enter")
    chat.page.get_by_text("The max reply length can be 1 to 60 tokens.").wait_for()
    assert chat.page.input_value("#prompt textarea") == "Hello"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("cut", "broke off"),
        ("busy", "this is the second"),
        ("wrong key", "rejected the key"),
        ("tool failure", "that is an observation"),
        ("hang", "sent nothing"),
        ("endless", "Cut at the max reply length, 60 tokens"),
    ],
)
def test_a_fault_is_had_at_a_click(chat: Chat, fault: str, says: str) -> None:
    expect(chat.page.locator("#intro .demos")).to_be_hidden()
    chat.choose("backend", "Script")
    chat.page.locator("#intro .demos").get_by_role("button", name=fault, exact=True).click()
    chat.page.wait_for_function("text => document.querySelector('#chat').textContent.includes(text)", arg=says)
    chat.wait_end()
    assert not chat.errors


def test_a_vanished_server_is_noticed_and_its_return_too(chat: Chat, house: House) -> None:
    chat.choose("backend", "Thinker")
    house.openai.answers = [Drop()]
    house.openai.listing = Drop()
    ask(chat, "Hello")
    about(chat, "is not ready")
    house.openai.listing = None
    house.openai.answers = [Reply()]
    about(chat, "Thinker is ready")


def test_an_image_is_refused_by_its_name(chat: Chat) -> None:
    chat.page.focus("#prompt textarea")
    chat.page.evaluate(
        """() => {
            const data = new DataTransfer();
            data.items.add(new File(['x'], 'photo.png', { type: 'image/png' }));
            document.querySelector('#prompt textarea').dispatchEvent(
                new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }));
        }"""
    )
    chat.page.get_by_text("'photo.png' cannot be added").wait_for()
