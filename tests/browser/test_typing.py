"""Enter and the keyboard: input methods (IME) and touch keyboards."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import CDPSession, Page, expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat
from tests.browser.test_sidebar import entries, imported, menu

_PROMPT = "#prompt textarea"
_HALF = "にほんg"


@pytest.fixture
def phone(new_chat: Callable[..., Chat]) -> Iterator[Chat]:
    """A page with a touch screen and no other pointer."""
    chat = new_chat(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    yield chat
    assert chat.errors == []


def compose(chat: Chat, text: str) -> CDPSession:
    """An input method shows a text that it has not committed, where the focus is."""
    session = chat.page.context.new_cdp_session(chat.page)
    session.send("Input.imeSetComposition", {"text": text, "selectionStart": len(text), "selectionEnd": len(text)})
    return session


def press(session: CDPSession, code: int) -> None:
    """Presses Enter with this key code: 229 is what an input method leaves of a key, 13 the key itself."""
    key: dict[str, Any] = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": code}
    session.send("Input.dispatchKeyEvent", {"type": "keyDown", "text": "\r", **key})
    session.send("Input.dispatchKeyEvent", {"type": "keyUp", **key})


def dispatch(chat: Chat, selector: str, **event: Any) -> None:
    """As `press`, with the events of a browser whose composition has ended before the key (Safari), or not (others)."""
    chat.page.eval_on_selector(
        selector,
        """(node, event) => ['keydown', 'keypress', 'keyup'].forEach((type) => node.dispatchEvent(
          new KeyboardEvent(type, { key: 'Enter', bubbles: true, cancelable: true, ...event })))""",
        event,
    )


def test_enter_that_ends_a_composition_sends_nothing(chat: Chat) -> None:
    page = chat.page
    page.focus(_PROMPT)
    session = compose(chat, _HALF)
    press(session, 229)
    page.wait_for_timeout(500)
    assert page.input_value(_PROMPT).strip() == _HALF
    session.send("Input.insertText", {"text": "日本語"})
    press(session, 229)
    page.wait_for_timeout(500)
    assert chat.texts("user") == [] and page.input_value(_PROMPT) == "日本語"
    press(session, 13)
    chat.wait_end()
    assert chat.texts("user") == ["日本語"]


@pytest.mark.parametrize("event", [{"isComposing": True}, {"keyCode": 229}])
def test_enter_of_an_input_method_is_not_the_pages(chat: Chat, event: dict[str, Any]) -> None:
    page = chat.page
    chat.type("half written")
    dispatch(chat, _PROMPT, **event)
    chat.type("/calc")
    page.wait_for_selector("#commands li")
    dispatch(chat, _PROMPT, **event)
    page.wait_for_timeout(500)
    assert page.input_value(_PROMPT) == "/calc"
    assert page.is_visible("#intro")
    page.press(_PROMPT, "Enter")
    page.wait_for_function("document.querySelector('#prompt textarea').value === '/calculator '")


@pytest.mark.parametrize("event", [{"isComposing": True}, {"keyCode": 229}])
def test_enter_of_an_input_method_ends_no_title_and_does_nothing_else(chat: Chat, event: dict[str, Any]) -> None:
    page = chat.page
    imported(chat, [("ships", "x")])
    menu(chat, 0).get_by_text("Rename").click()
    page.keyboard.type("half")
    dispatch(chat, "#sidebar .list input", **event)
    page.wait_for_timeout(300)
    page.keyboard.type(" and whole")
    page.keyboard.press("Enter")
    expect(entries(chat).locator("b")).to_have_text(["half and whole"])
    requests: list[str] = []
    chat.on("request", lambda request: requests.append(request.url))
    for selector in ("#system-prompt textarea", "#temperature input", "#sidebar input[type=search]"):
        dispatch(chat, selector, **event)
    page.wait_for_timeout(300)
    assert [url for url in requests if "queue/join" in url] == []


def test_example_page_waits_for_the_end_of_a_composition(app: RunningApp, new_chat: Callable[..., Chat]) -> None:
    chat = new_chat()
    chat.page.goto(app.url + "example")
    chat.page.fill("#prompt", "half written")
    for event in ({"isComposing": True}, {"keyCode": 229}):
        dispatch(chat, "#prompt", **event)
    assert chat.page.input_value("#prompt") == "half written"
    assert chat.page.is_visible("#intro")


def test_return_of_a_touch_keyboard_breaks_the_line(phone: Chat) -> None:
    page = phone.page
    assert page.get_attribute(_PROMPT, "enterkeyhint") == "enter"
    page.tap(_PROMPT)
    page.keyboard.type("first")
    page.keyboard.press("Enter")
    page.keyboard.type("second")
    page.wait_for_timeout(300)
    assert page.input_value(_PROMPT) == "first\nsecond"
    assert page.is_visible("#intro")
    page.tap("#send")
    phone.wait_end()
    assert page.locator("#chat [data-testid=user]").inner_text().split() == ["first", "second"]
    assert page.input_value(_PROMPT) == ""


def test_return_of_a_touch_keyboard_takes_no_command(phone: Chat) -> None:
    page = phone.page
    page.tap(_PROMPT)
    page.keyboard.type("/calc")
    page.wait_for_selector("#commands li")
    page.keyboard.press("Enter")
    assert page.input_value(_PROMPT) == "/calc\n"
    page.keyboard.press("Backspace")
    page.tap("#commands li")
    assert page.input_value(_PROMPT) == "/calculator "


def test_return_of_a_touch_keyboard_breaks_the_line_of_a_system_prompt(phone: Chat) -> None:
    page = phone.page
    phone.choose("backend", "Keyed")  # its key is asked for in the options, where the system prompt is too
    page.fill("#system-prompt textarea", "one")
    page.press("#system-prompt textarea", "Enter")
    page.keyboard.type("two")
    assert page.input_value("#system-prompt textarea") == "one\ntwo"


_POINTERS = """([coarse, fine]) => {
  const answers = { '(pointer: coarse)': coarse, '(any-pointer: fine)': fine }, real = matchMedia.bind(window);
  window.matchMedia = (query) => query in answers ? { matches: answers[query], addEventListener() {} } : real(query);
}"""


@pytest.mark.parametrize(("coarse", "fine", "sends"), [(False, True, True), (True, True, True), (True, False, False)])
def test_touch_screen_beside_a_mouse_has_a_keyboard(
    app: RunningApp, page: Page, coarse: bool, fine: bool, sends: bool
) -> None:
    page.add_init_script(f"({_POINTERS})({json.dumps([coarse, fine])})")
    chat = Chat(page, app.url)
    assert chat.page.get_attribute(_PROMPT, "enterkeyhint") == ("send" if sends else "enter")
    assert ("Enter sends" in chat.page.inner_text("#hint")) is sends
    chat.type("hello")
    chat.page.press(_PROMPT, "Enter")
    if sends:
        chat.wait_end()
    assert chat.page.input_value(_PROMPT) == ("" if sends else "hello\n")


def test_enter_sends_on_a_desktop_and_shift_breaks_the_line(chat: Chat) -> None:
    page = chat.page
    assert page.get_attribute(_PROMPT, "enterkeyhint") == "send"
    page.focus(_PROMPT)
    page.keyboard.type("first")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second")
    assert page.input_value(_PROMPT) == "first\nsecond"
    page.keyboard.press("Enter")
    chat.wait_end()
    assert len(chat.texts("user")) == 1
