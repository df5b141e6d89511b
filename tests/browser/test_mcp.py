"""Tools of an MCP server on the page: in the options, as commands, with progress, a form, an approval and results."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat

SERVER = Path(__file__).parent.parent / "mcp_server.py"
CONFIG = f"""
[[mcp]]
name = "box"
command = ["python", "{SERVER}"]

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
    expect(servers).to_have_count(2, timeout=SLOW_MS)
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
