"""The list of a visitor's conversations, as somebody uses it."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Chat
from tests.exports import letter, tour, zipped


@pytest.fixture
def visitor(chat: Chat) -> Iterator[Chat]:
    """Somebody who has not been here before, on a wide page."""
    yield chat
    assert chat.errors == []


def said(chat: Chat, text: str) -> None:
    chat.send(text)
    chat.wait_end()


def entries(chat: Chat) -> Locator:
    return chat.page.locator("#sidebar .one")


def menu(chat: Chat, place: int) -> Locator:
    entries(chat).nth(place).hover()
    entries(chat).nth(place).locator(".more").click()
    return chat.page.locator("#sidebar .menu")


_IMPORT = """async (given) => {
  for (const [title, text] of given) {
    const messages = [{ role: 'user', content: text }, { role: 'assistant', content: text }];
    const body = JSON.stringify({ title, messages });
    await fetch('conversations', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body });
  }
  window.glassbox.emit('conversations');
}"""


def imported(chat: Chat, given: list[tuple[str, str]]) -> None:
    """Conversations that no run belongs to; the last is the newest."""
    chat.page.evaluate(_IMPORT, [list(one) for one in given])


def focused(chat: Chat) -> str:
    return str(chat.page.evaluate("document.activeElement.textContent || document.activeElement.ariaLabel"))


def test_conversations_are_listed_opened_and_gone_back_to(visitor: Chat) -> None:
    page = visitor.page
    expect(page.locator("#sidebar .notice")).to_have_text("Your conversations appear here.")
    said(visitor, "hello whales")
    whales = page.url
    page.click("#sidebar .new")
    page.wait_for_selector("#intro", state="visible")
    assert "conversation" not in page.url
    said(visitor, "hello ships")
    expect(entries(visitor)).to_have_count(2)
    expect(entries(visitor).first).to_have_attribute("aria-current", "true")
    visitor.type("a draft")
    entries(visitor).nth(1).locator("a").click()
    expect(page.locator("#chat [data-testid=user]").last).to_have_text("hello whales")
    assert page.url == whales
    assert page.input_value("#prompt textarea") == "a draft"
    page.go_back()
    expect(page.locator("#chat [data-testid=user]").last).to_have_text("hello ships")
    page.reload()
    expect(page.locator("#chat [data-testid=user]").last).to_have_text("hello ships")


def test_a_run_goes_on_while_another_conversation_is_shown(visitor: Chat) -> None:
    page = visitor.page
    said(visitor, "hello")
    page.click("#sidebar .new")
    page.wait_for_selector("#intro", state="visible")
    visitor.send("tour")
    visitor.wait_token()
    expect(entries(visitor).first).to_have_class(re.compile("live"))
    entries(visitor).nth(1).locator("a").click()
    expect(page.locator("#chat [data-testid=user]").last).to_have_text("hello")
    page.wait_for_selector("#send", state="visible")
    page.wait_for_timeout(700)
    expect(page.locator("#live-reply [data-testid=bot]")).to_have_count(0)
    entries(visitor).first.locator("a").click()
    expect(page.locator("[data-testid=user]").last).to_have_text("tour")  # until then the other's end stands there
    visitor.wait_end()
    assert "scripted tour" in visitor.reply() or "Type approval" in visitor.reply()


def test_search_marks_what_it_finds_in_any_message(visitor: Chat) -> None:
    page = visitor.page
    said(visitor, "hello <b>whales</b> & co")
    page.click("#sidebar .new")
    page.wait_for_selector("#intro", state="visible")
    said(visitor, "faults")
    page.fill("#sidebar input[type=search]", "<B>whale")
    expect(entries(visitor)).to_have_count(1)
    expect(page.locator("#sidebar mark")).to_have_text("<b>whale")
    page.fill("#sidebar input[type=search]", "no such word")
    expect(page.locator("#sidebar .notice")).to_have_text("No matches")
    page.fill("#sidebar input[type=search]", "")
    expect(entries(visitor)).to_have_count(2)


def test_one_is_renamed_kept_as_a_file_imported_and_deleted(visitor: Chat, tmp_path: Path) -> None:
    page = visitor.page
    said(visitor, "hello")
    menu(visitor, 0).get_by_text("Rename").click()
    page.keyboard.type("Of <i>whales</i>")
    page.keyboard.press("Enter")
    expect(entries(visitor).first.locator("b")).to_have_text("Of <i>whales</i>")
    box = menu(visitor, 0)
    with page.expect_download() as kept:
        box.get_by_text("JSON").click()
    kept.value.save_as(tmp_path / "kept.json")
    assert json.loads((tmp_path / "kept.json").read_text())["title"] == "Of <i>whales</i>"
    with page.expect_download() as read:
        box.get_by_text("Markdown").click()
    assert read.value.suggested_filename.endswith(".md")
    box.get_by_text("Delete").click()
    page.locator("#sidebar .menu").get_by_text("Keep").click()
    menu(visitor, 0).get_by_text("Delete").click()
    page.locator("#sidebar .menu").get_by_text("Delete", exact=True).click()
    expect(entries(visitor)).to_have_count(0)
    page.wait_for_selector("#intro", state="visible")
    page.set_input_files("#sidebar input[type=file]", tmp_path / "kept.json")
    expect(page.locator("#chat [data-testid=user]")).to_have_text("hello")
    expect(entries(visitor).first.locator("b")).to_have_text("Of <i>whales</i>")
    (tmp_path / "odd.json").write_text("{no")
    page.set_input_files("#sidebar input[type=file]", tmp_path / "odd.json")
    expect(page.locator("#sidebar .notice")).to_contain_text("odd.json was not imported")


def test_exports_of_others_are_imported_and_what_was_not_is_said(visitor: Chat) -> None:
    page = visitor.page
    assert page.get_attribute("#sidebar input[type=file]", "accept") == ".json,.zip,application/json,application/zip"
    data = zipped(conversations=[tour(), letter(), {"mapping": {}, "title": "<b>Empty"}], user={})
    page.set_input_files(
        "#sidebar input[type=file]", {"name": "export.zip", "mimeType": "application/zip", "buffer": data}
    )
    expect(entries(visitor).locator("b")).to_have_text(["Whales", "Sums"])
    received = page.locator("#sidebar .notice")
    expect(received).to_have_text(
        "2 conversations imported. 1 conversation could not be read: <b>Empty: It has no messages that could be shown."
    )
    page.evaluate("window.glassbox.emit('conversations')")
    page.wait_for_timeout(400)
    expect(received).to_contain_text("2 conversations imported")
    entries(visitor).nth(1).locator("a").click()
    expect(page.locator("#chat [data-testid=user]")).to_have_text([re.compile("What is 17"), "Thanks"])
    expect(visitor.part("python")).to_be_visible()
    page.fill("#sidebar input[type=search]", "ANOTHER ánswer")
    expect(page.locator("#sidebar mark")).to_have_text("Another answer")
    expect(received).to_have_text("")
    for name, body, why in (("odd.json", b'{"a": 1}', "What can be imported"), ("a.zip", b"PK\x03\x04x", "damaged")):
        page.set_input_files("#sidebar input[type=file]", {"name": name, "mimeType": "x", "buffer": body})
        expect(received).to_contain_text(f"{name} was not imported")
        expect(received).to_contain_text(why)
    expect(page.locator("#sidebar .import")).to_be_enabled()


def test_the_mark_stands_at_the_right_place_after_characters_of_two_units(visitor: Chat) -> None:
    imported(visitor, [("ships", "\U0001f40b\U0001f40b e\u0301 \u9cb8\u9c7c cafe\u0301s \U0001f40b")])
    for words, marked in (("CAFÉ", "cafe\u0301"), ("\u9c7c", "\u9c7c"), ("\U0001f40b e", "\U0001f40b e\u0301")):
        visitor.page.fill("#sidebar input[type=search]", words)
        expect(visitor.page.locator("#sidebar mark")).to_have_text(marked)


def test_a_narrow_page_shows_the_list_above_everything(new_chat: Callable[..., Chat]) -> None:
    chat = new_chat(width=390)
    said(chat, "hello")
    assert not chat.page.is_visible("#sidebar")
    chat.page.click("#show-conversations")
    expect(entries(chat)).to_have_count(1)
    chat.page.keyboard.press("Escape")
    chat.page.click("#show-conversations")
    entries(chat).first.locator("a").click()
    chat.page.wait_for_selector("#sidebar", state="hidden")
    expect(chat.page.locator("#chat [data-testid=user]")).to_have_text("hello")
    assert chat.errors == []


def test_another_visitor_sees_none_of_it(visitor: Chat, new_chat: Callable[..., Chat]) -> None:
    said(visitor, "hello")
    other = new_chat(visitor.page.url)
    other.wait_toast("no such conversation")
    expect(other.page.locator("#sidebar .notice")).to_have_text("Your conversations appear here.")
    assert entries(other).count() == 0


def test_the_one_that_is_shown_is_marked_also_without_a_run(visitor: Chat) -> None:
    page = visitor.page
    imported(visitor, [("ships", "x"), ("whales", "y")])
    page.goto(f"{page.url}?__theme=dark")
    for place, title in ((1, "ships"), (0, "whales")):
        entries(visitor).nth(place).locator("a").click()
        expect(page.locator("#sidebar .one[aria-current=true]")).to_have_text(re.compile(title))
        expect(page.locator("#chat [data-testid=user]")).to_have_text("x" if place else "y")
    assert "__theme=dark" in page.url


def test_a_long_list_is_fetched_as_it_is_scrolled_and_stays_where_it_is(visitor: Chat) -> None:
    page = visitor.page
    imported(visitor, [(f"number {n}", "x") for n in range(130)])
    expect(entries(visitor)).to_have_count(50)
    for count in (100, 130):
        entries(visitor).last.scroll_into_view_if_needed()
        expect(entries(visitor)).to_have_count(count)
    assert len(set(entries(visitor).all_inner_texts())) == 130
    entries(visitor).nth(110).scroll_into_view_if_needed()
    before = page.evaluate("document.querySelector('#sidebar .list').scrollTop")
    imported(visitor, [("the newest", "x")])
    expect(entries(visitor)).to_have_count(131)
    assert page.evaluate("document.querySelector('#sidebar .list').scrollTop") == before
    page.fill("#sidebar input[type=search]", "number 7")
    expect(entries(visitor)).to_have_count(11)
    page.set_viewport_size({"width": 1280, "height": 3000})
    page.fill("#sidebar input[type=search]", "")
    expect(entries(visitor)).to_have_count(100)  # as many as it takes to fill the page


def test_what_is_found_is_shown_wherever_it_stands_in_a_message(visitor: Chat) -> None:
    page = visitor.page
    imported(
        visitor, [("far", f"{'many words before ' * 20}the\n \u041c\u041e\u0420\u0415 (a+b)* {'and after ' * 20}")]
    )
    for search in ("\u043c\u043e\u0440\u0435", "(A+B)*"):
        page.fill("#sidebar input[type=search]", search)
        mark = page.locator("#sidebar mark")
        expect(mark).to_have_text(re.compile(re.escape(search), re.IGNORECASE))
        box, around = mark.bounding_box(), page.locator("#sidebar .one small").bounding_box()
        assert box and around and box["y"] + box["height"] <= around["y"] + around["height"] + 2


def test_a_title_that_is_being_written_is_kept_while_the_list_changes(visitor: Chat) -> None:
    page = visitor.page
    imported(visitor, [("ships", "x")])
    menu(visitor, 0).get_by_text("Rename").click()
    page.keyboard.type("half")
    with page.expect_response(re.compile("conversations.limit")):
        imported(visitor, [("whales", "y")])
    page.keyboard.type(" and whole")
    page.keyboard.press("Enter")
    expect(entries(visitor).locator("b")).to_have_text(["whales", "half and whole"])
    menu(visitor, 0).get_by_text("Rename").click()
    page.keyboard.type("never")
    page.keyboard.press("Escape")
    expect(entries(visitor).locator("b")).to_have_text(["whales", "half and whole"])


def test_the_list_is_used_by_the_keyboard(visitor: Chat) -> None:
    page = visitor.page
    imported(visitor, [("ships", "x"), ("whales", "y")])
    expect(entries(visitor)).to_have_count(2)
    page.focus("#sidebar .one .more >> nth=0")
    page.keyboard.press("Enter")
    expect(page.locator("#sidebar .more").first).to_be_focused()
    page.keyboard.press("Tab")
    assert focused(visitor) == "Rename"
    page.keyboard.press("Escape")
    expect(page.locator("#sidebar .menu")).to_have_count(0)
    expect(page.locator("#sidebar .more").first).to_be_focused()
    page.keyboard.press("Enter")
    page.locator("#sidebar .menu").get_by_text("Delete").focus()
    page.keyboard.press("Enter")
    assert focused(visitor) == "Keep"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(entries(visitor)).to_have_count(1)
    expect(entries(visitor).locator("a")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#chat [data-testid=user]")).to_have_text("x")


def test_a_link_is_shown_where_the_clipboard_is_closed(visitor: Chat) -> None:
    page = visitor.page
    imported(visitor, [("ships", "x")])
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    links: list[str] = []
    visitor.on("dialog", lambda dialog: (links.append(dialog.default_value), dialog.dismiss()))
    menu(visitor, 0).get_by_text("Copy link").click()
    page.goto(links[0])
    expect(page.locator("#chat [data-testid=user]")).to_have_text("x")


def test_the_list_does_not_come_along_to_a_narrow_page(visitor: Chat) -> None:
    page = visitor.page
    expect(page.locator("#show-conversations")).to_have_attribute("aria-expanded", "true")
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_selector("#sidebar", state="hidden")
    page.click("#show-conversations")
    expect(page.locator("#sidebar .close")).to_be_focused()
    assert page.evaluate("document.querySelector('#conversation').inert")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.wait_for_function("!document.querySelector('#conversation').inert")
    page.click("#show-conversations")
    page.reload()
    page.wait_for_selector("#prompt textarea")
    expect(page.locator("#show-conversations")).to_have_attribute("aria-expanded", "false")
    assert not page.is_visible("#sidebar")
