"""A visitor's documents are read before a model without tools answers, and its citations open their passages."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.app_process import RunningApp
from tests.axe import violations
from tests.browser.conftest import Chat
from tests.browser.test_documents import MARKUP, add, file, wait_message
from tests.browser.test_replay import MOMENT, length_of

REPLY = r"It is plumbago [2], says a note [1, 2].\n\nNot `[1]`, [7] or [1](https://example.org)."
SHOWN = "It is plumbago [2], says a note [1, 2]. Not [1], [7] or 1."
CONFIG = f"""
[[backends]]
name = "Reader"
kind = "langchain"
class = "langchain_core.language_models:FakeListChatModel"
options = {{ responses = ["{REPLY}"], sleep = 0.005 }}
"""
SHED = f"The password of the shed is plumbago. {MARKUP}\n"
HOUSE = "# House\n\nThe house has no password, and its shed has no door.\n"
QUESTION = "What is the password of the shed?"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    with RunningApp(tmp_path_factory.mktemp("read"), CONFIG) as app:
        yield app


@pytest.fixture
def asked(chat: Chat) -> Chat:
    """A page whose visitor has added two documents, and asked about them."""
    chat.page.click("#show-options")
    add(chat, file("notes.txt", SHED.encode()), file("house.md", HOUSE.encode()))
    wait_message(chat, "house.md can be searched: ask about it")
    chat.page.click("#options .close")
    chat.send(QUESTION)
    chat.wait_end()
    return chat


def test_passages_are_a_part_of_the_reply_and_of_the_context(asked: Chat) -> None:
    part = asked.part("Your documents")
    expect(part.locator("summary span")).to_have_text(QUESTION)
    part.locator("summary").click()
    expect(part.locator("p")).to_have_text(["Passage 1", "Passage 2"])
    expect(part.locator("pre").first).to_contain_text("[1] house.md, House")
    expect(part.locator("pre").last).to_have_text(f"[2] notes.txt, section 1\n{SHED.strip()}")
    asked.tab("Context")
    key = asked.page.locator("#context .key [data-part=documents]")
    expect(key).to_contain_text("documents")
    expect(asked.page.locator("#context .given em").last).to_contain_text("passages of your documents")
    assert asked.page.locator("[onerror]").count() == 0 and asked.page.evaluate("window.hacked") is None
    assert asked.errors == []


def test_citation_opens_its_passage_by_mouse_and_by_keyboard(asked: Chat) -> None:
    for where in ("now", "after a reload"):
        cites = asked.page.locator("#chat .cite")
        expect(cites).to_have_text(["[2]", "1", "2"])
        assert asked.reply().split() == SHOWN.split(), where
        expect(cites.first).to_have_attribute("aria-label", "Passage 2: notes.txt, section 1")
        assert not asked.part("Your documents").evaluate("part => part.open")
        cites.first.click()
        passage = asked.page.locator(".parts pre.cited")
        expect(passage).to_contain_text("plumbago")
        expect(passage).to_be_focused()
        expect(passage).to_be_visible()
        asked.page.keyboard.press("Escape")
        expect(cites.first).to_be_focused()
        cites.nth(1).focus()
        asked.page.keyboard.press("Enter")
        expect(passage).to_contain_text("House")
        expect(passage).to_be_in_viewport()
        asked.open(asked.page.url)
    assert asked.errors == []


def test_citation_of_a_search_selects_its_passage(asked: Chat) -> None:
    asked.send("/search password shed plumbago")
    asked.wait_end()
    cite = asked.page.locator("#chat .cite").nth(3)
    number = cite.get_attribute("value")
    cite.click()
    passage = asked.page.locator(".parts pre.cited")
    expect(passage).to_be_visible()
    selected = asked.page.evaluate("getSelection().toString()")
    assert selected.startswith(f"[{number}] ") and f"\n[{int(number or 0) + 1}] " not in selected
    assert asked.errors == []


def test_citation_of_a_growing_reply_opens_its_passage(asked: Chat) -> None:
    asked.send(QUESTION)
    cite = asked.page.locator("#live-reply .cite, #chat .cite >> nth=3").first
    cite.wait_for()
    asked.wait_end()
    expect(asked.page.locator("#chat .cite")).to_have_count(6)
    asked.page.locator("#chat .cite").nth(3).click()
    opened = "[...document.querySelectorAll('#chat .parts details')].map(part => part.open)"
    assert asked.page.evaluate(opened) == [False, True], "the passage of its own reply"
    assert asked.errors == []


def test_replay_has_the_passages_and_the_citations(asked: Chat) -> None:
    run = asked.page.get_attribute("#agent-state [data-run]", "data-run")
    asked.page.goto(f"{asked.page.url.split('?')[0]}?run={run}")
    asked.page.wait_for_selector(".replay", state="visible")
    asked.page.fill(MOMENT, str(length_of(asked)))
    cites = asked.page.locator("#live-reply .cite")
    expect(cites).to_have_count(3)
    cites.first.click()
    expect(asked.page.locator("#live-reply .parts pre.cited")).to_contain_text("plumbago")
    assert asked.errors == []


def test_copied_reply_has_the_numbers(asked: Chat) -> None:
    selected = """() => {
      const range = document.createRange();
      range.selectNodeContents([...document.querySelectorAll('#chat [data-testid=bot]')].at(-1));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      return getSelection().toString();
    }"""
    assert "It is plumbago [2], says a note [1, 2]." in asked.page.evaluate(selected)


def test_search_is_turned_off_in_the_options_and_stays_so(asked: Chat) -> None:
    asked.page.click("#show-options")
    box = asked.page.get_by_role("checkbox", name="Search my documents before each reply")
    expect(box).to_be_checked()
    box.uncheck()
    asked.page.click("#options .close")
    asked.send(QUESTION)
    asked.wait_end()
    expect(asked.page.locator("#chat .parts")).to_have_count(1)
    expect(asked.page.locator("#chat .cite")).to_have_count(3)
    asked.open(asked.page.url)
    asked.page.click("#show-options")
    expect(box).not_to_be_checked()
    assert asked.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_with_an_open_passage_has_no_accessibility_faults(asked: Chat, scheme: str) -> None:
    asked.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    asked.page.reload()
    asked.wait_ready()
    asked.page.locator("#chat .cite").first.click()
    assert violations(asked.page) == []
