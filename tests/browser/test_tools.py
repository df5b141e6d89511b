"""Tools by a command, by checkboxes, by a model's own choice, and tools that behave badly.

The model that chooses is a server on 127.0.0.1 that speaks the real protocol.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.app_process import RunningApp
from tests.browser.conftest import Chat, Contexts
from tests.browser.hostile import MARKUP
from tests.providers import OpenAIServer, Reply, Tool

TOOLS = ["calculator", "clock", "search", "count"]
HOSTILE = ["shout", "flood", "bulk"]
CONFIG = """
[tools]
approval = ["count"]
enabled = ["calculator", "clock", "search", "count", {hostile}]

[[backends]]
name = "Chooser"
kind = "openai"
model = "test-model"
base_url = "{openai}"

[[backends]]
name = "Script"
kind = "scripted"
options = {{ speed = 20 }}
"""


@dataclass
class House:
    app: RunningApp
    openai: OpenAIServer

    def bodies(self) -> list[Any]:
        """What the model was asked, request by request."""
        return [request.body for request in self.openai.requests if request.body]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with OpenAIServer() as openai:
        hostile = ", ".join(f'"tests.browser.hostile:{name}"' for name in HOSTILE)
        config = CONFIG.format(openai=openai.base_url, hostile=hostile)
        with RunningApp(tmp_path_factory.mktemp("house"), config) as app:
            yield House(app, openai)


@pytest.fixture(scope="module")
def page_at_house(house: House, contexts: Contexts) -> Iterator[Chat]:
    with contexts.visit(house.app.url) as chat:
        yield chat


@pytest.fixture
def chat(reused_chat: Chat) -> Chat:
    return reused_chat


@pytest.fixture
def chooser(house: House, page_at_house: Chat) -> Chat:
    """A page with a model that chooses tools."""
    house.openai.answers = [Reply()]
    house.openai.requests.clear()
    page_at_house.start_over()
    page_at_house.choose("backend", "Chooser")
    return page_at_house


def offered(chat: Chat) -> list[str]:
    """The commands in the list above the prompt."""
    return chat.page.locator("#commands li:visible b").all_text_contents()


def wait_offered(chat: Chat, *names: str) -> None:
    said = (
        "names => [...document.querySelectorAll('#commands li:has(code) b')].map(b => b.textContent).join() === names"
    )
    chat.page.wait_for_function(said, arg=",".join(f"/{name}" for name in names))


def prompt(chat: Chat) -> str:
    return chat.page.input_value("#prompt textarea")


def press(chat: Chat, *keys: str) -> None:
    for key in keys:
        chat.page.press("#prompt textarea", key)


def test_a_slash_lists_the_tools_and_typing_narrows(chat: Chat) -> None:
    assert offered(chat) == []
    press(chat, "/")
    wait_offered(chat, *TOOLS)
    inputs = chat.page.locator("#commands li code").all_text_contents()
    assert inputs == ["<expression>", "<time_zone>", "<query>", "<upto>"]
    assert "arithmetic" in chat.page.inner_text("#commands li >> nth=0")
    press(chat, "c")
    wait_offered(chat, "calculator", "clock", "count")
    press(chat, "o")
    wait_offered(chat, "count")
    press(chat, "x")
    wait_offered(chat)
    press(chat, "Backspace", "Backspace")
    wait_offered(chat, "calculator", "clock", "count")
    press(chat, "Escape")
    wait_offered(chat)
    assert prompt(chat) == "/c", "Escape closes the list and nothing else"
    chat.type("a /")
    wait_offered(chat)
    assert chat.errors == []


def test_a_command_is_completed_by_arrows_and_enter_by_tab_and_by_a_click(chat: Chat) -> None:
    press(chat, "/", "c")
    wait_offered(chat, "calculator", "clock", "count")
    press(chat, "ArrowDown", "ArrowDown", "ArrowUp")
    assert chat.page.inner_text("#commands [aria-selected=true] b") == "/clock"
    press(chat, "Enter")
    chat.page.wait_for_function("document.querySelector('#prompt textarea').value === '/clock '")
    assert offered(chat) == [] and chat.page.is_visible("#intro"), "nothing was sent"
    chat.type("/s")
    wait_offered(chat, "search")
    press(chat, "Tab")
    assert prompt(chat) == "/search "
    chat.type("/")
    wait_offered(chat, *TOOLS)
    press(chat, "ArrowUp")
    examples = chat.page.locator("#commands li:not(:has(code)) b")  # of the backend, after the tools
    assert chat.page.inner_text("#commands [aria-selected=true] b") == examples.last.inner_text(), "round and round"
    chat.page.locator("#commands li", has_text="/calculator").click()
    assert prompt(chat) == "/calculator "
    assert chat.page.evaluate("document.activeElement === document.querySelector('#prompt textarea')")
    assert chat.errors == []


def test_a_whole_name_is_sent_by_enter(chat: Chat) -> None:
    chat.page.click("#prompt textarea")
    chat.page.keyboard.type("/clock")
    wait_offered(chat, "clock")
    press(chat, "Enter")
    chat.page.wait_for_function("document.querySelector('#prompt textarea').value === ''")
    chat.wait_end()
    assert chat.texts("user") == ["/clock"]
    assert "(UTC)" in (chat.part("clock").locator("pre").last.text_content() or "")
    assert chat.errors == []


def test_the_small_model_answers_with_what_a_command_gave(
    model_app: RunningApp, open_chat: Callable[..., Chat]
) -> None:
    chat = open_chat(model_app.url)
    chat.page.click("#show-options")
    chat.page.fill("#max-tokens input", "40")
    chat.page.press("#max-tokens input", "Tab")
    chat.send("/calculator 17*23")
    chat.wait_end()
    assert chat.part("calculator").locator("pre").last.text_content() == "391"
    assert chat.reply()
    given = chat.page.text_content("#context .given") or ""
    assert "the tool calculator found" in given and "391" in given
    assert chat.errors == []


def test_a_command_that_fails_is_red_and_the_reply_goes_on(chat: Chat) -> None:
    chat.send("/calculator 9**9**9")
    chat.wait_end()
    failed = chat.part("calculator")
    assert "failed" in (failed.get_attribute("class") or "")
    assert "too large" in (failed.locator("p").last.text_content() or "")
    assert chat.phase == "complete" and "I am a script" in chat.reply()
    assert chat.page.get_attribute("#timeline li[data-kind=tool]", "data-failed") is not None
    assert chat.errors == []


def test_a_command_that_cannot_be_run_is_reported_and_stays_in_the_prompt(chat: Chat) -> None:
    for text, why in [
        ("/nosuch x", "There is no command /nosuch."),
        ("/search", "/search needs something: /search <query>."),
    ]:
        chat.page.click("#prompt textarea")
        chat.type(text)
        press(chat, "Enter")
        chat.wait_toast(why)
        assert prompt(chat) == text
        assert chat.texts("user") == [] and chat.page.is_visible("#send")
    assert chat.errors == []


def checked(chat: Chat) -> list[str]:
    return [
        label.inner_text().strip()
        for label in chat.page.locator("#tools label:has(input)").all()
        if label.locator("input").is_checked()
    ]


def turn(chat: Chat, *names: str, on: bool) -> None:
    for name in names:
        chat.page.locator("#tools").get_by_label(name, exact=True).set_checked(on)


def test_only_checked_tools_are_offered_to_the_model_and_the_choice_stays(
    house: House, new_chat: Callable[..., Chat]
) -> None:
    house.openai.answers = [Reply()]
    chooser = new_chat(house.app.url)
    chooser.page.click("#show-options")
    assert checked(chooser) == TOOLS + HOSTILE
    turn(chooser, "clock", "search", *HOSTILE, on=False)
    chooser.send("Hello")
    chooser.wait_end()
    assert [one["function"]["name"] for one in house.bodies()[-1]["tools"]] == ["calculator", "count"]
    chooser.open(chooser.page.url)
    chooser.page.click("#show-options")
    assert checked(chooser) == ["calculator", "count"]
    turn(chooser, "calculator", "count", on=False)
    chooser.send("/clock")  # a command is the visitor's own word
    chooser.wait_end()
    assert "(UTC)" in (chooser.part("clock").locator("pre").last.text_content() or "")
    assert not house.bodies()[-1].get("tools")
    chooser.open(chooser.page.url)
    chooser.page.click("#show-options")
    assert checked(chooser) == []
    turn(chooser, "clock", on=True)
    chooser.send("Hello again")
    chooser.wait_end()
    assert [one["function"]["name"] for one in house.bodies()[-1]["tools"]] == ["clock"]
    assert chooser.errors == []


def test_a_model_calls_two_tools_at_once_and_answers_with_their_results(chooser: Chat, house: House) -> None:
    calls = (
        Tool("calculator", ('{"expre', 'ssion": "17*', '23"}'), "call_1"),
        Tool("search", ('{"query"', ': "memory modes"}'), "call_2"),
    )
    house.openai.answers = [
        Reply(("Let me see.",), tools=calls, pause=0.02),
        Reply(("It is ", "391", "."), pause=0.4),
    ]
    chooser.watch_phases()
    chooser.send("What is 17*23, and what does the guide say of memory?")
    chooser.part("search", "#live-reply").wait_for()
    assert chooser.page.locator("#live-reply .parts summary b").all_text_contents() == ["calculator", "search"]
    chooser.wait_end()
    assert chooser.phases[-2:] == ["streaming", "complete"]
    assert chooser.reply().split() == ["Let", "me", "see.", "It", "is", "391."]
    assert chooser.bar("calculator").is_visible() and chooser.bar("search").is_visible()
    drawn = [one.get_attribute("data-p") for one in chooser.page.locator("#timeline .stretches i").all()]
    assert drawn[-4:] == ["streaming", "tool", "waiting", "streaming"]
    found = chooser.part("search").locator("pre").last.text_content() or ""
    assert found.startswith("[1] memory.md") and "window_turns" in found
    assert chooser.part("calculator").locator("pre").all_text_contents() == ['{\n "expression": "17*23"\n}', "391"]
    received = {m["tool_call_id"]: m["content"] for m in house.bodies()[-1]["messages"] if m["role"] == "tool"}
    assert received["call_1"] == "391" and "window_turns" in received["call_2"]
    assert chooser.errors == []


def test_two_calls_wait_each_for_its_own_answer(chooser: Chat, house: House) -> None:
    calls = [Tool("count", (f'{{"upto": {n}, "pause_s": 0}}',), f"call_{n}") for n in (1, 2)]
    house.openai.answers = [Reply((), tools=calls), Reply(("Counted.",))]
    chooser.send("Count to one, and to two.")
    cards = chooser.page.locator(".asked .card")
    first, second = cards.filter(has_text='"upto": 1'), cards.filter(has_text='"upto": 2')
    second.get_by_role("button", name="Edit").click()
    second.locator("textarea").fill('{"upto": 3, "pause_s": 0}')
    first.get_by_role("button", name="Approve").click()
    first.wait_for(state="detached")
    assert second.locator("textarea").input_value() == '{"upto": 3, "pause_s": 0}', "an edit is not lost"
    assert chooser.phase == "approval"
    second.get_by_role("button", name="Approve").click()
    chooser.wait_end()
    received = {m["tool_call_id"]: m["content"] for m in house.bodies()[-1]["messages"] if m["role"] == "tool"}
    assert received == {"call_1": "1 of 1\n", "call_2": "1 of 3\n2 of 3\n3 of 3\n"}
    assert chooser.errors == []


def call(house: House, name: str, pause: float = 0) -> None:
    """Lets the model call this tool next, and then say something."""
    house.openai.answers = [Reply((), tools=(Tool(name),)), Reply(("I have ", "seen it."), pause=pause)]


def last_result(house: House) -> str:
    """The one tool's result that the model was given."""
    (result,) = [m["content"] for m in house.bodies()[-1]["messages"] if m["role"] == "tool"]
    return str(result)


def test_markup_from_a_tool_is_text_everywhere(chooser: Chat, house: House) -> None:
    page = chooser.page
    call(house, "shout", pause=0.5)
    chooser.send("Shout!")
    chooser.part("shout", "#live-reply").locator("pre", has_text="window.hacked").first.wait_for(state="attached")
    chooser.wait_end()
    assert last_result(house) == MARKUP
    for _ in range(2):
        chooser.part("shout").locator("summary").click()
        assert chooser.part("shout").locator("pre").last.inner_text() == MARKUP
        chooser.bar("shout").locator("> button").click()
        assert chooser.bar("shout").locator("pre").last.inner_text() == MARKUP
        assert (
            page.locator(
                ":is(#chat, #live-reply, #agent-state) :is(script, [onerror], h1, a:not(.turn > a), .parts b b)"
            ).count()
            == 0
        )
        assert page.locator("#chat .parts details").count() == 1
        assert page.evaluate("window.hacked") is None
        chooser.open(page.url)
        page.wait_for_selector("#chat .parts")
    assert chooser.reply() == "I have seen it."
    assert chooser.errors == []


def test_markup_in_a_command_is_text_everywhere(chooser: Chat) -> None:
    chooser.choose("backend", "Script")
    text = '<img src=x onerror="window.hacked=1"> </summary><b>'
    chooser.send(f"/shout {text}")
    chooser.wait_end()
    assert chooser.page.inner_text("#chat .parts summary span") == text
    chooser.page.locator("#context .given li", has_text="window.hacked").last.wait_for(state="attached")
    assert chooser.page.locator(":is(#chat, #agent-state) :is(script, [onerror])").count() == 0
    assert chooser.page.evaluate("window.hacked") is None
    assert chooser.errors == []


def test_a_flood_of_output_leaves_the_page_at_work(chooser: Chat, house: House) -> None:
    call(house, "flood")
    chooser.send("Flood!")
    chooser.bar("flood").locator("> button").click(timeout=5000)
    chooser.bar("flood").locator(".detail").wait_for(timeout=5000)
    chooser.wait_end()
    assert chooser.reply() == "I have seen it."
    assert last_result(house).startswith("0\n1\n2\n") and "[cut: it has 48,890 characters]" in last_result(house)
    assert len(last_result(house)) < 6100
    shown = chooser.part("flood").locator("pre").last.text_content() or ""
    assert len(shown) < 10_000
    assert "[… cut here …]" in shown, "what is not all says so"
    assert chooser.errors == []


def test_megabytes_of_output_are_cut(chooser: Chat, house: House) -> None:
    call(house, "bulk")
    chooser.send("Fetch it all!")
    chooser.wait_end()
    assert chooser.reply() == "I have seen it." and chooser.phase == "complete"
    assert len(last_result(house)) < 6100 and "\n[cut: it has 100,0" in last_result(house)
    chooser.bar("bulk").locator("> button").click()
    shown = [chooser.part("bulk").locator("pre").last, chooser.bar("bulk").locator("pre").last]
    assert all(0 < len(one.text_content() or "") < 10_000 for one in shown)
    assert chooser.errors == []
