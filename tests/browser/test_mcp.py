"""An MCP server on the page: its tools in the options and as commands, with forms and results, and its prompts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat

SERVER = Path(__file__).parent.parent / "mcp_server.py"
CONFIG = f"""
[[mcp]]
name = "box"
command = ["python", "{SERVER}"]

[[mcp]]
name = "odd"
command = ["python", "{SERVER.parent / "bad_mcp_server.py"}", "prompts"]
tools = []

[[mcp]]
name = "broken"
command = ["no-such-program-1"]

[[backends]]
name = "Script"
kind = "scripted"
options = {{ speed = 20 }}
"""
SLOW_MS = 60_000


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    with RunningApp(tmp_path_factory.mktemp("mcp"), CONFIG) as app:
        yield app


def test_the_options_show_the_servers_and_their_tools(chat: Chat) -> None:
    chat.page.click("#show-options")
    servers = chat.page.locator("#options .servers li")
    expect(servers).to_have_count(3, timeout=SLOW_MS)
    expect(servers.first).to_contain_text("Ready, 14 tools", timeout=SLOW_MS)
    expect(servers.last).to_contain_text("there is no program 'no-such-program-1'", timeout=SLOW_MS)
    chat.page.reload()  # the tools came after the page
    chat.wait_ready()
    chat.page.click("#show-options")
    expect(chat.page.locator("#tools label[data-server=box]")).to_have_count(14, timeout=SLOW_MS)
    chat.page.click("#options .close")
    assert chat.errors == []


def test_a_command_shows_progress_and_results(chat: Chat) -> None:
    chat.type("/step")
    expect(chat.page.locator("#commands li:has(code) b")).to_have_text(["/steps"], timeout=SLOW_MS)
    chat.send('/steps {"upto": 20, "pause_s": 0.2}')
    part = chat.part("steps", "#live-reply")
    part.locator("summary").click()
    expect(part).to_contain_text("3 of 20: step 3", timeout=SLOW_MS)
    expect(part).not_to_contain_text("all steps done")
    chat.wait_end()
    for text in ("20 of 20: step 20", "all steps done", "Log of the server", "info: did 20"):
        expect(chat.part("steps")).to_contain_text(text)
    chat.send("/report")
    chat.wait_end()
    chat.part("report").locator("summary").click()
    image = chat.part("report").locator("img")
    expect(image).to_have_count(1)
    assert image.evaluate("node => node.decode().then(() => node.naturalWidth)") == 8
    expect(chat.part("report")).to_contain_text("behind the link")
    assert chat.errors == []


def test_a_form_is_filled_in(chat: Chat) -> None:
    chat.send("/book")
    card = chat.page.locator("#approval .card")
    expect(card.locator("b")).to_have_text("box asks: Which table?", timeout=SLOW_MS)
    card.get_by_role("button", name="Send").click()
    expect(card.get_by_label("Day")).to_be_focused()  # the browser says that it is required
    card.get_by_label("Day").fill("Monday <b>")
    card.get_by_label("People").fill("99")
    card.get_by_role("button", name="Send").click()
    expect(card.get_by_label("People")).to_be_focused()
    card.get_by_label("People").fill("5")
    card.get_by_label("At the window").check()
    card.get_by_label("Size").select_option("large")
    card.get_by_role("button", name="Send").click()
    chat.wait_end()
    expect(chat.page.locator("#approval .card")).to_have_count(0)
    chat.part("book").locator("summary").click()
    expect(chat.part("book")).to_contain_text("a large table on Monday <b> for 5, window True")
    assert chat.errors == []


def test_a_tool_that_may_destroy_waits_for_approval(chat: Chat) -> None:
    chat.send("/erase /tmp/x")
    card = chat.page.locator("#approval .card")
    expect(card.locator("b")).to_have_text("erase waits for your approval", timeout=SLOW_MS)
    card.get_by_role("button", name="Refuse").click()
    chat.wait_end()
    expect(chat.part("erase")).to_contain_text("refused by the visitor")


def prompt_button(chat: Chat, text: str) -> Locator:
    return chat.page.locator("#intro .prompts button", has_text=text)


def test_a_prompt_fills_the_message_in_and_sends_nothing(chat: Chat) -> None:
    chat.type("my draft")
    button = prompt_button(chat, "joke")
    expect(button).to_have_text("jokebox · Asks for a joke.", timeout=SLOW_MS)
    button.click()
    prompt = chat.page.locator("#prompt textarea")
    expect(prompt).to_have_value("Tell me a joke.\n\nAbout <b>whales</b>.\nmy draft", timeout=SLOW_MS)
    expect(prompt).to_be_focused()
    expect(chat.page.locator("#chat .message-row")).to_have_count(0)
    assert chat.errors == []


def test_a_prompt_with_arguments_asks_for_them(chat: Chat) -> None:
    button = prompt_button(chat, "Plan a trip")
    button.click(timeout=SLOW_MS)
    card = chat.page.locator("#intro .card")
    expect(card.get_by_label("city")).to_be_focused()
    card.get_by_label("city").press("Escape")
    expect(card).to_have_count(0)
    expect(button).to_be_focused()
    button.press("Enter")
    card.get_by_label("city").press("Enter")
    expect(card.get_by_label("city")).to_be_focused()  # the browser says that it is required
    card.get_by_label("city").fill("<b>Bergen</b> 東京")
    card.get_by_label("days (optional)").fill("2")
    card.get_by_label("days (optional)").press("Enter")
    prompt = chat.page.locator("#prompt textarea")
    expect(prompt).to_have_value("Plan 2 days in <b>Bergen</b> 東京.", timeout=SLOW_MS)
    expect(card).to_have_count(0)
    expect(chat.page.locator("#chat .message-row")).to_have_count(0)
    assert chat.errors == []


def test_a_prompt_that_fails_says_why(chat: Chat) -> None:
    prompt_button(chat, "refuse").click(timeout=SLOW_MS)
    card = chat.page.locator("#intro .card")
    card.get_by_label("why").fill("ink")
    card.get_by_role("button", name="Fill in").click()
    expect(card.get_by_role("alert")).to_have_text("box: it answered with an error: not for ink", timeout=SLOW_MS)
    expect(card.get_by_label("why")).to_have_value("ink")
    card.get_by_role("button", name="Cancel").click()
    prompt_button(chat, "empty").click()
    expect(chat.page.locator("#intro .asked").get_by_role("alert")).to_have_text(
        "odd: its prompt has no text of the user.", timeout=SLOW_MS
    )
    expect(prompt_button(chat, "<b>bold</b>")).to_have_count(1)  # markup is text
    expect(chat.page.locator("#prompt textarea")).to_have_value("")
    assert chat.errors == []
