"""Replies of unusual servers on the page: while they stream, when they have ended, and after a reload."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page

from tests.app_process import RunningApp
from tests.browser.conftest import Chat
from tests.providers import OpenAIServer, Reply, Stream
from tests.streams import DONE, HELLO, ONE_CALL, STOP, delta, halves

THOUGHT = "They want a sum, I add 2 and 2."
CLOSED = Stream(
    [
        delta(THOUGHT[:16]),
        delta(THOUGHT[16:]),
        1.5,
        delta("\n</thi"),
        delta("nk>\n\n"),
        delta("It is"),
        1.5,
        delta(" **4**."),
        STOP,
        DONE,
    ]
)
ENTRY = """
[[backends]]
name = "{name}"
kind = "openai"
base_url = "{url}"
model = "test-model"
timeout = 20
"""
NAMES = ("Thinks", "Ends", "Calls", "Writes", "Example")
"""One entry for each test: what a backend has learned of its server stays with it."""


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture(scope="module")
def remote_app(provider: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    entries = [ENTRY.format(name=name, url=provider.base_url) for name in NAMES]
    config = "".join([*entries, '[tools]\nenabled = ["calculator"]\n'])
    with RunningApp(tmp_path_factory.mktemp("remote"), config) as app:
        yield app


@pytest.fixture
def chat(remote_app: RunningApp, open_chat: Callable[..., Chat]) -> Chat:
    return open_chat(remote_app.url)


def test_text_that_turns_out_to_be_thinking_goes_into_its_block(provider: OpenAIServer, chat: Chat) -> None:
    provider.answers = [CLOSED]
    page = chat.page
    chat.choose("backend", "Thinks")
    chat.send("2+2?")
    page.locator("#live-reply", has_text=THOUGHT).wait_for()
    page.locator("#live-reply", has_text="It is").wait_for()
    assert chat.live() == "It is"
    page.locator("#live-reply .parts details", has_text="Thought").wait_for(state="attached")
    chat.wait_end()

    def shown() -> None:
        assert chat.reply() == "It is 4."
        thought = page.locator("#chat .parts details")
        assert thought.count() == 1
        assert THOUGHT in (thought.first.text_content() or "")
        assert "</think>" not in (page.text_content("#chat") or "")

    shown()
    page.reload()
    page.wait_for_selector("#chat [data-testid=bot]")
    shown()

    chat.send("And again?")
    page.locator("#live-reply .parts details").first.wait_for(state="attached")
    assert chat.live() == "", "the second time nothing of the thinking is taken for the reply"
    chat.wait_end()
    assert chat.reply() == "It is 4."
    assert chat.errors == []


def test_a_reply_ends_whatever_becomes_of_the_line(provider: OpenAIServer, chat: Chat) -> None:
    chat.choose("backend", "Ends")
    for answer in (
        Stream([*HELLO, STOP], "hang"),
        Stream([*HELLO, DONE], "reset"),
        Stream([*HELLO, STOP, "data: {\n\n"]),
    ):
        provider.answers = [answer]
        chat.send("Hi")
        chat.wait_end()
        assert (chat.phase, chat.reply()) == ("complete", "Hello")
    assert chat.errors == []


def test_a_call_in_repeated_deltas_is_one_on_the_page(provider: OpenAIServer, chat: Chat) -> None:
    provider.answers = [Stream([*ONE_CALL["all repeated"], delta("", "tool_calls"), DONE]), Reply(["It is 391."])]
    chat.choose("backend", "Calls")
    chat.send("17*23?")
    chat.wait_end()
    call = chat.part("calculator")
    assert call.locator("pre").last.text_content() == "391"
    assert chat.reply() == "It is 391."


def test_characters_are_whole_on_the_page(provider: OpenAIServer, chat: Chat) -> None:
    provider.answers = [Stream([*halves("content", "Hi \\ud83d", "\\ude00!"), delta(" a\u2028b"), STOP, DONE])]
    chat.choose("backend", "Writes")
    chat.send("Hi")
    chat.wait_end()
    assert "Hi 😀!" in chat.reply()
    assert "\ufffd" not in chat.reply()


def test_the_example_of_client_js_takes_the_thinking_back(
    provider: OpenAIServer, remote_app: RunningApp, page: Page
) -> None:
    provider.answers = [CLOSED]
    page.goto(remote_app.url + "example")
    page.wait_for_selector("#backend:enabled")
    page.select_option("#backend", "Example")
    page.fill("#prompt", "2+2?")
    page.press("#prompt", "Enter")
    page.locator("#talk p.text", has_text=THOUGHT).wait_for()
    page.locator("#talk p.text", has_text="It is **4**.").wait_for()
    assert page.locator("#talk p.text").all_text_contents() == ["It is **4**."]
    assert page.locator("#talk pre[data-kind=reasoning]").all_text_contents() == [f"{THOUGHT}\n"]
