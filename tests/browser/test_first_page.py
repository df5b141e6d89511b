"""The first page on a slow line: a box to type into before anything else has arrived, and little that must arrive."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat, Contexts

FRAME, BOX, PROMPT = "#first-frame", "#first-message", "#prompt textarea"
NOTE = "#first-note"
SHOWN = "#chat [data-testid=user]"
BOXES = """(selectors) => selectors.map((selector) => {
  const { x, y, width, height } = document.querySelector(selector).getBoundingClientRect();
  return [x, y, width, height].map(Math.round);
})"""

ENTER = """(node, event) => node.dispatchEvent(
  new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true, ...event }))"""


@pytest.fixture
def context(contexts: Contexts) -> Iterator[BrowserContext]:
    with contexts.lend() as context:
        yield context


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@contextmanager
def slow_line(page: Page, url: str, pattern: str = "**/assets/*") -> Iterator[None]:
    """Opens the page on a line on which nothing but its HTML arrives before the end of the block."""
    waiting: list[Route] = []
    over = False
    page.route(pattern, lambda route: route.continue_() if over else waiting.append(route))
    page.goto(url, wait_until="commit")
    page.wait_for_selector(FRAME)
    yield
    page.wait_for_timeout(300)
    assert waiting and page.locator("#prompt").count() == 0, "the page is not there yet"
    over = True
    for route in waiting:
        route.continue_()
    page.unroute(pattern)


def wait_replaced(page: Page) -> None:
    expect(page.locator(PROMPT)).to_be_visible()
    expect(page.locator(FRAME)).to_have_count(0)


def test_what_is_typed_early_is_kept_with_selection_and_focus(app: RunningApp, page: Page) -> None:
    with slow_line(page, app.url):
        expect(page.locator(BOX)).to_be_focused()
        page.keyboard.type("Hello, world")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("again")
        page.keyboard.press("Shift+Home")
    wait_replaced(page)
    expect(page.locator(PROMPT)).to_be_focused()
    assert page.input_value(PROMPT) == "Hello, world\nagain"
    page.keyboard.type("and again")
    assert page.input_value(PROMPT) == "Hello, world\nand again", "the selection was kept"
    page.wait_for_timeout(500)
    assert page.locator(SHOWN).count() == 0, "nothing was sent"


@pytest.mark.parametrize("by_key", [True, False])
def test_message_that_is_sent_early_is_sent_once(app: RunningApp, page: Page, by_key: bool) -> None:
    with slow_line(page, app.url):
        page.keyboard.type("hello")
        if by_key:
            page.keyboard.press("Enter")
            page.keyboard.press("Enter")
        else:
            page.locator(FRAME).get_by_role("button", name="Send").click()
        expect(page.locator(NOTE)).to_have_text("Will be sent when the page is ready.")
        page.keyboard.type(" is not changed")
        assert page.input_value(BOX) == "hello"
    page.wait_for_selector("#agent-state [data-phase=complete]", state="attached")
    expect(page.locator(SHOWN)).to_have_text(["hello"])
    expect(page.locator(PROMPT)).to_have_value("")
    page.wait_for_timeout(1000)
    assert page.locator(SHOWN).count() == 1


@pytest.mark.parametrize("by_key", [True, False])
def test_message_that_waits_can_be_edited(app: RunningApp, page: Page, by_key: bool) -> None:
    with slow_line(page, app.url):
        page.keyboard.type("hello")
        page.keyboard.press("Enter")
        if by_key:
            page.keyboard.press("Escape")
        else:
            page.locator(FRAME).get_by_role("button", name="Edit").click()
        expect(page.locator(NOTE)).to_have_text("")
        page.keyboard.type(" there")
    wait_replaced(page)
    page.wait_for_timeout(1000)
    assert page.input_value(PROMPT) == "hello there" and page.locator(SHOWN).count() == 0


def test_empty_message_is_not_sent(app: RunningApp, page: Page) -> None:
    with slow_line(page, app.url):
        page.keyboard.type("  ")
        page.keyboard.press("Enter")
        page.locator(FRAME).get_by_role("button", name="Send").click()
        expect(page.locator(NOTE)).to_have_text("")
    wait_replaced(page)
    page.wait_for_timeout(500)
    assert page.locator(SHOWN).count() == 0


def test_message_of_a_link_to_a_conversation_goes_into_it(app: RunningApp, context: BrowserContext, page: Page) -> None:
    first = Chat(context.pages[0], app.url)
    first.send("hello")
    first.wait_end()
    with slow_line(page, first.page.url):
        assert not page.locator(f"{FRAME} h1").is_visible(), "the heading is that of an empty conversation"
        page.keyboard.type("hello again")
        page.keyboard.press("Enter")
    expect(page.locator(SHOWN)).to_have_text(["hello", "hello again"])
    assert page.url == first.page.url
    first.leave()


def test_composition_in_progress_is_not_broken(app: RunningApp, page: Page) -> None:
    with slow_line(page, app.url):
        page.focus(BOX)
        page.keyboard.insert_text("A: ")
        session = page.context.new_cdp_session(page)
        session.send("Input.imeSetComposition", {"text": "にほんg", "selectionStart": 4, "selectionEnd": 4})
    page.wait_for_selector("#intro :is(h1, h2)", state="attached")
    page.wait_for_timeout(1000)
    assert page.locator(FRAME).count() == 1 and page.input_value(BOX) == "A: にほんg"
    expect(page.locator(BOX)).to_be_focused()
    session.send("Input.insertText", {"text": "日本語"})
    wait_replaced(page)
    expect(page.locator(PROMPT)).to_have_value("A: 日本語")
    expect(page.locator(PROMPT)).to_be_focused()


def test_enter_of_an_input_method_sends_nothing(app: RunningApp, page: Page) -> None:
    with slow_line(page, app.url):
        page.keyboard.type("half written")
        for event in ({"isComposing": True}, {"keyCode": 229}):
            page.eval_on_selector(BOX, ENTER, event)
        expect(page.locator(NOTE)).to_have_text("")
    wait_replaced(page)


def test_draft_survives_reloads_on_a_slow_line(app: RunningApp, page: Page) -> None:
    with slow_line(page, app.url):
        page.keyboard.type("a draft")
        page.reload(wait_until="commit")
        page.wait_for_selector(FRAME)
        assert page.input_value(BOX) == "a draft"
    wait_replaced(page)
    assert page.input_value(PROMPT) == "a draft"
    page.reload()
    wait_replaced(page)
    assert page.input_value(PROMPT) == "a draft", "once, not twice"


def test_replay_has_no_box_to_type_into(app: RunningApp, page: Page) -> None:
    with slow_line(page, app.url + "?run=none"):
        assert not page.locator(BOX).is_visible()
    wait_replaced(page)


def test_page_that_does_not_arrive_says_what_to_do(app: RunningApp, contexts: Contexts) -> None:
    with contexts.own() as context:
        page = context.new_page()
        page.clock.install()
        page.route("**/assets/*", lambda route: route.abort())
        page.goto(app.url, wait_until="commit")
        page.wait_for_selector(FRAME)
        page.keyboard.type("kept")
        page.clock.run_for(15_000)
        expect(page.locator(NOTE)).to_have_text("")
        page.clock.run_for(15_000)
        expect(page.locator(NOTE)).to_have_text("The page could not be loaded completely. Reload.")
        page.unroute("**/assets/*")
        page.get_by_role("link", name="Reload.").click()
        wait_replaced(page)
        assert page.input_value(PROMPT) == "kept"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_frame_looks_like_the_page(app: RunningApp, page: Page, width: int, scheme: Any) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    looks = """(selectors) => selectors.map((selector) => {
      const style = getComputedStyle(document.querySelector(selector));
      return [style.backgroundColor, style.color, style.fontSize, style.fontFamily.split(',')[0]];
    })"""
    with slow_line(page, app.url):
        places = page.evaluate(BOXES, [f"{FRAME} .bar", f"{FRAME} svg", BOX, f"{FRAME} form button", f"{FRAME} h1"])
        seen = page.evaluate(looks, [FRAME, BOX, f"{FRAME} form button", f"{FRAME} h1"])
    wait_replaced(page)
    page.wait_for_selector("#intro :is(h1, h2)")
    found = page.evaluate(BOXES, ["#header", "#header .brand svg", PROMPT, "#send", "#intro :is(h1, h2)"])
    far = {
        name: (before, after)
        for name, before, after in zip(("bar", "brand", "box", "send", "heading"), places, found, strict=True)
        if any(abs(a - b) > 2 for a, b in zip(before[:2], after[:2], strict=True))
    }
    assert far == {}, "each at its place"
    assert page.evaluate(looks, ["body", PROMPT, "#send", "#intro :is(h1, h2)"])[1:] == seen[1:]


def test_no_sign_of_loading_is_seen(app: RunningApp, page: Page) -> None:
    """Gradio draws the page in parts, the prompt among the first."""
    page.add_init_script("""new MutationObserver(() => {
      const shown = (selector) => document.querySelector(selector)?.getClientRects().length;
      if (!document.body || shown('#first-frame') || !shown('#prompt textarea')) return;
      window.seen ??= [document.body.innerText, !shown('#intro .intro'), !shown('#agent-state [data-phase]')];
    }).observe(document, { childList: true, subtree: true })""")
    page.goto(app.url)
    wait_replaced(page)
    text, *missing = page.evaluate("window.seen")
    assert "Loading" not in text and missing == [False, False]


def test_frame_is_calm_and_is_not_printed(app: RunningApp, page: Page) -> None:
    with slow_line(page, app.url):
        moves = page.eval_on_selector_all(
            f"{FRAME} *", "nodes => nodes.filter((node) => node.getAnimations().length).length"
        )
        assert moves == 0
        page.emulate_media(media="print")
        assert not page.locator(FRAME).is_visible()
        page.emulate_media(media="screen")
    wait_replaced(page)


def assets(page: Page) -> dict[str, int]:
    """The bytes that each script and style sheet took on the line."""
    entries = page.evaluate(
        "performance.getEntriesByType('resource').map(({ name, transferSize }) => [name, transferSize])"
    )
    return {name.rpartition("/")[2]: size for name, size in entries if re.search(r"/assets/|theme\.css|/static/", name)}


def test_everything_is_asked_for_at_once_and_only_once(app: RunningApp, page: Page) -> None:
    """What a script imports later would wait for another round trip."""
    html = page.request.get(app.url).text()
    named = set(re.findall(r'\./assets/([^"]+)"(?! disabled)', html))
    page.goto(app.url)
    wait_replaced(page)
    page.wait_for_timeout(500)
    first = assets(page)
    assert set(first) <= named, "what is not named in the page"
    assert len(first) < 45 and sum(first.values()) < 320_000
    page.goto("about:blank")
    page.goto(app.url)
    wait_replaced(page)
    again = assets(page)
    assert set(again) <= named and sum(again.values()) == 0, "browsers keep all of it"


def test_page_itself_is_small(app: RunningApp, page: Page) -> None:
    answer = page.request.get(app.url, headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip" and answer.headers["cache-control"] == "no-cache"
    assert len(answer.body()) < 30_000 and int(answer.headers["content-length"]) < 10_000


def test_page_takes_no_focus_from_elsewhere(app: RunningApp, page: Page, new_chat: Callable[..., Chat]) -> None:
    with slow_line(page, app.url):
        page.keyboard.type("typed")
        page.locator(FRAME).get_by_role("button", name="Send").focus()
    wait_replaced(page)
    assert page.input_value(PROMPT) == "typed"
    assert page.evaluate("document.querySelector('gradio-app').inert") is False
