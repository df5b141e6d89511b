"""The header and the options on the page: menus, the sheet, the keyboard, and the room for the conversation."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat

CONFIG = """
[[backends]]
name = "Scripted tour"
kind = "scripted"
options = { speed = 20 }

[[backends]]
name = "Parrot"
kind = "langchain"
class = "langchain_core.language_models:FakeListChatModel"
options = { responses = ["Hello."] }

[[backends]]
name = "Several"
kind = "openai"
models = ["first", "second"]
base_url = "http://127.0.0.1:9/v1"

[[backends]]
name = "Keyed"
kind = "openai"
model = "m"
base_url = "http://127.0.0.1:9/v1"
key = "NO_SUCH_KEY"
"""
SIZES = [(1920, 1080), (1280, 720), (1024, 768), (768, 1024), (640, 360), (390, 844)]
LISTS = "[role=listbox]:visible"
_LAYOUT = """() => {
  const box = (selector) => document.querySelector(selector).getBoundingClientRect();
  const controls = [...document.querySelectorAll('#header :is(button, input)')]
    .filter((node) => node.checkVisibility() && !node.closest('[popover]'));
  const outside = controls.filter((node) => {
    const { top, bottom, left, right, width } = node.getBoundingClientRect();
    return top < 0 || bottom > 48 || left < 0 || right > innerWidth || !width;
  });
  return {
    header: box('#header').height, below: box('#main').top, chat: box('#scroll').height / innerHeight,
    outside: outside.map((node) => node.outerHTML), tooWide: document.body.scrollWidth > innerWidth,
  };
}"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    with RunningApp(tmp_path_factory.mktemp("header"), CONFIG) as app:
        yield app


@pytest.fixture
def page(reused_chat: Chat) -> Iterator[Page]:
    page = reused_chat.page
    page.mouse.move(640, 500)
    if page.is_visible("#options"):
        page.click("#options .close")
    if page.input_value("#backend input") != "Scripted tour":
        reused_chat.choose("backend", "Scripted tour")
    yield page
    assert reused_chat.errors == []


def focused(page: Page) -> str:
    """The name of the element that has the focus."""
    return str(
        page.evaluate("""() => {
          const { ariaLabel, textContent } = document.activeElement;
          return document.activeElement === window.glassbox.promptBox() ? 'Message' : ariaLabel || textContent.trim();
        }""")
    )


def go_to_the_top(page: Page) -> None:
    """Lets the order of focus begin at the first element of the page."""
    page.evaluate("""() => {
      const top = document.createElement('span');
      top.tabIndex = -1;
      document.body.prepend(top);
      top.focus();
      top.remove();
    }""")


@pytest.mark.parametrize("backend", ["Scripted tour", "Several"])
def test_at_most_eight_tabs_lead_from_the_top_to_the_message_box(page: Page, reused_chat: Chat, backend: str) -> None:
    reused_chat.choose("backend", backend)
    expect(page.locator("#model")).to_have_count(int(backend == "Several"))
    go_to_the_top(page)
    order = list[str]()
    while "Message" not in order and len(order) < 12:
        page.keyboard.press("Tab")
        order.append(focused(page))
    version = ["Version"] if backend == "Several" else []
    before, after = ["Skip to the message box", "Conversations", "Model"], ["Memory", "Share", "Options", "Message"]
    assert order == [*before, *version, *after]


def test_skip_link_is_seen_with_the_focus_and_leads_to_the_message_box(page: Page) -> None:
    go_to_the_top(page)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_in_viewport()
    address = page.url
    page.keyboard.press("Enter")
    expect(page.locator("#prompt textarea")).to_be_focused()
    assert page.url == address


def test_tab_alone_opens_no_menu(page: Page) -> None:
    page.focus("#show-conversations")
    for _ in range(4):
        page.keyboard.press("Tab")
        expect(page.locator(LISTS)).to_have_count(0)


@pytest.mark.parametrize("key", ["Enter", "Space", "ArrowDown", "ArrowUp", "s"])
def test_key_opens_a_menu_and_escape_closes_it_without_a_choice(page: Page, key: str) -> None:
    box = page.locator("#memory input")
    before = box.input_value()
    box.focus()
    page.keyboard.press(key)
    expect(page.locator(LISTS)).to_have_count(1)
    expect(box).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Escape")
    expect(page.locator(LISTS)).to_have_count(0)
    expect(box).to_have_attribute("aria-expanded", "false")
    expect(box).to_be_focused()
    assert box.input_value() == before


def test_tab_away_and_a_click_elsewhere_close_a_menu(page: Page) -> None:
    before = page.input_value("#backend input")
    for leave in ("Tab", "Shift+Tab"):
        page.click("#backend input")
        page.keyboard.press("ArrowDown")
        page.keyboard.press(leave)
        expect(page.locator(LISTS)).to_have_count(0)
    page.click("#memory input")
    page.keyboard.press("Tab")  # to the parameter of the mode, which stands in the menu
    expect(page.locator("#token-limit input")).to_be_focused()
    expect(page.locator(LISTS)).to_have_count(1)
    page.keyboard.press("Tab")
    expect(page.locator(LISTS)).to_have_count(0)
    page.click("#memory input")
    page.mouse.click(640, 600)
    expect(page.locator(LISTS)).to_have_count(0)
    page.click("#memory input")
    page.click("#backend input")
    expect(page.locator(LISTS)).to_have_count(1)
    page.click("#backend input")
    expect(page.locator(LISTS)).to_have_count(0)
    assert page.input_value("#backend input") == before


def test_menu_is_used_by_arrows_and_by_letters(page: Page) -> None:
    box = page.locator("#memory input")
    box.focus()
    for keys, mode in (
        (["Home"], "none"),
        (["ArrowDown", "ArrowDown"], "window"),
        (["End"], "recall"),
        (["s", "u"], "summary"),
        (["t"], "tokens"),
    ):
        page.keyboard.press("Enter")
        for key in keys:
            page.keyboard.press(key)
        active = page.locator(f"#{box.get_attribute('aria-activedescendant')}")
        expect(active).to_have_attribute("aria-label", re.compile(f"^{mode} · "))
        page.keyboard.press("Enter")
        expect(box).to_have_value(re.compile(f"^{mode} · "))
        expect(box).to_be_focused()
        page.wait_for_timeout(800)  # letters after a pause begin another word


def test_option_has_name_state_and_a_line(page: Page) -> None:
    page.click("#backend input")
    keyed = page.get_by_role("option", name="Keyed")
    expect(keyed.locator("b")).to_have_text("Keyed")
    expect(keyed.locator(".state")).to_have_text(" · Needs a key")
    expect(keyed.locator("small")).to_contain_text("It needs a key")
    expect(page.get_by_role("option", name="Scripted tour")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Escape")


def test_open_menu_is_not_drawn_again(page: Page) -> None:
    page.click("#backend input")
    item = page.get_by_role("option", name="Keyed").element_handle()
    page.evaluate("""() => {
      for (const choice of window.glassbox.choices.backend) choice.state = 'Changed';
      window.glassbox.emit('choices');
    }""")
    assert (item.text_content() or "").startswith("Keyed · Changed")
    page.evaluate("window.glassbox.choices.backend.reverse(); window.glassbox.emit('choices')")
    assert page.get_by_role("option").all_text_contents()[-1].startswith("Keyed")
    page.keyboard.press("Escape")
    page.click("#backend input")
    assert page.get_by_role("option").all_text_contents()[0].startswith("Keyed")
    page.keyboard.press("Escape")


def test_options_are_a_sheet_that_moves_nothing(page: Page) -> None:
    places = """() => ['#conversation', '#agent-state', '#prompt']
      .map((selector) => JSON.stringify(document.querySelector(selector).getBoundingClientRect()))"""
    before = page.evaluate(places)
    page.focus("#show-options")
    page.keyboard.press("Enter")
    sheet = page.get_by_role("dialog", name="Options")
    expect(sheet).to_be_visible()
    expect(page.get_by_label("Close the options")).to_be_focused()
    expect(page.locator("#show-options")).to_have_attribute("aria-expanded", "true")
    assert page.evaluate(places) == before
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('#options').contains(document.activeElement)")
    page.click("#prompt textarea")  # the sheet is not modal
    expect(sheet).to_be_visible()
    page.focus("#tools input")
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    expect(page.locator("#show-options")).to_be_focused()


def test_options_fill_a_phone_and_what_is_behind_cannot_be_reached(new_chat: Callable[..., Chat]) -> None:
    chat = new_chat(width=390)
    page = chat.page
    page.click("#show-options")
    box: Any = page.locator("#options").bounding_box()
    assert (box["x"], box["y"], box["width"], box["height"]) == (0, 0, 390, 844)
    assert page.evaluate("document.querySelector('#main').inert")
    page.click("#options .close")
    assert not page.evaluate("document.querySelector('#main').inert")
    expect(page.locator("#show-options")).to_be_focused()


def test_backend_that_needs_a_key_asks_for_it(page: Page, reused_chat: Chat) -> None:
    expect(page.locator("#about .enter-key")).to_be_hidden()
    reused_chat.choose("backend", "Keyed")
    expect(page.locator("#key input")).to_be_focused()
    expect(page.locator("#about p")).to_contain_text("it needs a key")
    page.keyboard.press("Escape")
    expect(page.locator("#options")).to_be_hidden()
    page.get_by_role("button", name="Enter a key").click()
    expect(page.locator("#key input")).to_be_focused()
    page.keyboard.press("Escape")
    reused_chat.choose("backend", "Scripted tour")
    expect(page.locator("#about .enter-key")).to_be_hidden()


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_conversation_has_half_of_the_screen_beside_the_line_about_a_model(
    new_chat: Callable[..., Chat], width: int, height: int
) -> None:
    chat = new_chat()
    page = chat.page
    page.set_viewport_size({"width": width, "height": height})
    chat.choose("backend", "Keyed")
    expect(page.locator("#about p")).to_contain_text("it needs a key")
    page.click("#options .close")
    expect(page.locator("#options")).to_be_hidden()
    expect(page.locator("#about p")).to_be_visible()
    layout = page.evaluate(_LAYOUT)
    assert layout["chat"] >= 0.5, layout
    assert not layout["tooWide"]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_header_is_one_row_and_the_conversation_has_half_of_the_screen(
    new_chat: Callable[..., Chat], width: int, height: int
) -> None:
    chat = new_chat(viewport={"width": width, "height": height})
    layout = chat.page.evaluate(_LAYOUT)
    assert (layout["header"], layout["below"]) == (48, 48)
    assert (layout["outside"], layout["tooWide"]) == ([], False)
    assert layout["chat"] >= 0.5
    chat.choose("backend", "Several")
    chat.page.wait_for_selector("#model input")
    layout = chat.page.evaluate(_LAYOUT)
    assert (layout["header"], layout["outside"], layout["tooWide"]) == (48, [], False)
    for menu in ("backend", "model", "memory"):
        chat.page.click(f"#{menu} input")
        expect(chat.page.locator(LISTS)).to_be_in_viewport(ratio=1)
        assert chat.page.evaluate("[document.scrollingElement.scrollLeft, document.body.scrollLeft]") == [0, 0]
        chat.page.keyboard.press("Escape")
    assert chat.errors == []


def test_prompts_of_a_backend_stand_in_the_intro_and_among_the_commands(page: Page, reused_chat: Chat) -> None:
    chat = reused_chat
    expect(page.locator("#intro .entry")).to_contain_text("Scripted tour · No model: a fixed script")
    assert page.locator("#intro .demos button").count() == 14
    chat.type("/sl")
    page.keyboard.press("End")
    expect(page.locator("#commands li b")).to_have_text(["slow"])
    page.keyboard.press("Tab")
    assert page.input_value("#prompt textarea") == "slow"
    chat.type("")
    chat.send("busy")
    chat.wait_end()
    assert page.locator("[data-prompt]:visible").count() == 0
    chat.clear()
    chat.choose("backend", "Parrot")
    expect(page.locator("#intro .demos")).to_be_hidden()
    expect(page.locator("#intro .entry")).to_have_text("")
    assert "SmolLM2" not in page.inner_text("body")
    chat.choose("backend", "Scripted tour")


def test_page_has_one_main_heading_before_and_after_the_first_message(page: Page, reused_chat: Chat) -> None:
    expect(page.locator("h1")).to_have_text(re.compile("Glassbox"))
    reused_chat.send("hello")
    reused_chat.wait_end()
    expect(page.locator("h1")).to_have_count(1)


def test_share_says_who_can_open_the_address(page: Page, reused_chat: Chat) -> None:
    page.get_by_role("button", name="Share").click()
    expect(page.locator("#share-popover .none")).to_be_visible()
    page.keyboard.press("Escape")
    reused_chat.send("hello")
    reused_chat.wait_end()
    page.get_by_role("button", name="Share").click()
    expect(page.get_by_label("The address of this conversation")).to_have_value(page.url)
    expect(page.locator("#share-popover .this p")).to_contain_text("Only this browser can open it.")
    page.keyboard.press("Escape")


def test_sidebar_lies_over_the_page_where_there_is_little_room(new_chat: Callable[..., Chat]) -> None:
    page = new_chat(viewport={"width": 1024, "height": 768}).page
    left = page.locator("#conversation").bounding_box()
    page.click("#show-conversations")
    expect(page.locator("#sidebar .close")).to_be_focused()
    assert page.locator("#conversation").bounding_box() == left
    page.mouse.click(700, 400)
    expect(page.locator("#sidebar")).to_be_hidden()
    expect(page.locator("#show-conversations")).to_be_focused()
