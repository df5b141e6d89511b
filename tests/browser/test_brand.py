"""A page of one's own: its name, words, colours and prompts, without a change of our files."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.app_process import RunningApp
from tests.axe import violations
from tests.browser.conftest import SCRIPTED, Chat

CONFIG = f"""
[page]
title = "Whale watch"
tagline = "Ask me anything about whales."
intro = "intro.md"
logo = "🐳"
accent = "#1d4ed8"
hide = ["memory", "share"]
panel = "closed"
links = [{{ text = "How it was made", url = "https://example.org/whales" }}]

[[page.prompts]]
title = "How old do they get?"
message = "How old do whales get?"
backend = "Parrot"
memory = "window"
picture = "🎂"
{SCRIPTED}
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    folder = tmp_path_factory.mktemp("brand")
    (folder / "intro.md").write_text("Made **by whales**, for whales.")
    with RunningApp(folder, CONFIG) as app:
        yield app


def test_the_page_has_its_own_name_words_and_colour(chat: Chat) -> None:
    page = chat.page
    assert page.title() == "Whale watch"
    expect(page.locator("#brand h1")).to_have_text(re.compile("🐳.*Whale watch", re.DOTALL))
    expect(page.locator("#intro h2")).to_have_text("Ask me anything about whales.")
    expect(page.locator("#intro strong")).to_have_text("by whales")
    expect(page.locator("#intro .links a")).to_have_attribute("href", "https://example.org/whales")
    for part in ("#memory-control", "#share"):
        expect(page.locator(part)).to_be_hidden()
    background = "(node) => getComputedStyle(node).backgroundColor"
    assert page.locator("#send").evaluate(background) == "rgb(29, 78, 216)"
    page.emulate_media(color_scheme="dark")
    page.reload()
    chat.wait_ready()
    dark = page.locator("#send").evaluate(background)
    assert dark not in ("rgb(29, 78, 216)", "rgb(20, 184, 166)")
    assert violations(page) == []
    page.emulate_media(color_scheme="light")


def test_a_closed_panel_is_shown_on_a_button(chat: Chat) -> None:
    page, panel = chat.page, chat.page.locator("#agent-state")
    button = page.get_by_role("button", name="Run panel")
    expect(panel).to_be_hidden()
    expect(page.locator("#sidebar")).to_be_visible()
    chat.send("hello")
    chat.wait_end()
    expect(button).to_have_text(re.compile("Run panel.*Done"))
    button.click()
    expect(panel).to_be_visible()
    expect(button).to_have_attribute("aria-expanded", "true")
    button.click()
    expect(panel).to_be_hidden()
    page.locator("#chat .turn [data-context], #chat .turn [data-inspect]").first.click()
    expect(panel).to_be_visible()
    assert violations(page) == [] and chat.errors == []


def test_a_prompt_brings_its_model_and_its_memory(chat: Chat) -> None:
    expect(chat.page.locator(".prompts .picture")).to_have_text("🎂")
    chat.page.get_by_text("How old do they get?").click()
    chat.wait_end()
    assert chat.reply() == "Hello."
    expect(chat.page.locator("#agent-state")).to_contain_text("Parrot")
    expect(chat.page.locator("#agent-state")).to_contain_text("window")
    assert chat.texts("user")[0] == "How old do whales get?"
