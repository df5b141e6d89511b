"""The page for people who cannot see it or use no mouse: axe in every state, and what the live regions announce."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.app_process import RunningApp
from tests.axe import violations
from tests.browser.conftest import Chat

SIZES = {1280: 720, 390: 844}
_WATCH = """() => {
  const announced = window.announced = [], last = new WeakMap();
  const loud = (node) => {
    const region = node?.closest?.('[aria-live], [role=status], [role=alert], [role=log]');
    const how = region?.getAttribute('aria-live') ?? (region?.role === 'alert' ? 'assertive' : 'polite');
    return region && how !== 'off' && !region.closest('[aria-hidden=true], [inert], [hidden]') ? region : null;
  };
  const look = (changes) => {
    const regions = new Set(changes.map(({ target }) => loud(target.nodeType === 1 ? target : target.parentElement)));
    for (const region of regions) {
      const text = region?.textContent.trim().replace(/\\s+/g, ' ');
      if (!text || text === last.get(region)) continue;
      last.set(region, text);
      announced.push([region.getAttribute('role') ?? region.getAttribute('aria-live'), text]);
    }
  };
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true, characterData: true });
}"""
"""Keeps what the live regions of the page have said: [role, text]."""


@pytest.fixture(scope="module")
def app(paced_app: RunningApp) -> RunningApp:
    return paced_app


class States:
    """The states of one page, one after the other, and what axe finds in each at both sizes and in both schemes."""

    def __init__(self, chat: Chat) -> None:
        self.chat, self.page = chat, chat.page
        self.where: dict[str, set[str]] = {}

    def check(self, state: str, prepare: Callable[[Page], Any] = lambda _: None) -> None:
        """Lets axe look at the page as it is now; `prepare` opens what another size has closed."""
        self.page.add_style_tag(content="* { transition: none !important; animation: none !important; }")
        for width, height in SIZES.items():
            self.page.set_viewport_size({"width": width, "height": height})
            for scheme in ("light", "dark"):
                self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                self.page.wait_for_timeout(100)
                prepare(self.page)
                for line in violations(self.page):
                    self.where.setdefault(line, set()).add(f"{state}, {width}, {scheme}")
        self.page.set_viewport_size({"width": 1280, "height": 720})
        self.page.emulate_media(color_scheme="light")

    def fail_if_any(self) -> None:
        """Fails with all violations, each with the states in which it was found."""
        lines = [f"{line}\n    in {'; '.join(sorted(where))}" for line, where in sorted(self.where.items())]
        if lines:
            pytest.fail("\n".join(["axe has found:", *lines]), pytrace=False)


@pytest.fixture
def states(chat: Chat) -> Iterator[States]:
    yield (states := States(chat))
    states.fail_if_any()


def open_menu(page: Page, name: str) -> None:
    if not page.get_by_role("option").first.is_visible():
        page.locator(f"#{name} :is(input, button, [role=combobox])").first.click()
    page.get_by_role("option").first.wait_for()


def open_part(button: str, part: str) -> Callable[[Page], None]:
    """Opens a part of the page unless it is open."""

    def open_it(page: Page) -> None:
        if not page.locator(part).is_visible():
            page.click(button)
        page.wait_for_selector(part, state="visible")

    return open_it


def close_all(page: Page) -> None:
    """Loads the page again: that closes menus, sheets and drawers in every design."""
    page.reload()
    page.wait_for_selector("#prompt textarea", state="visible")
    page.wait_for_timeout(1000)


def test_axe_finds_nothing_before_and_beside_a_conversation(states: States) -> None:
    page = states.page
    states.check("empty page")
    for name in ("backend", "memory"):
        states.check(f"menu {name}", partial(open_menu, name=name))
        close_all(page)
    states.check("options", open_part("#show-options", "#options"))
    close_all(page)
    states.check("sidebar", open_part("#show-conversations", "#sidebar"))
    close_all(page)
    states.chat.type("/")
    page.locator("#commands li").first.wait_for()
    states.check("commands")


def test_axe_finds_nothing_during_a_run(states: States) -> None:
    chat, page = states.chat, states.page
    chat.send("slow")
    states.check("waiting")
    chat.stop()
    states.check("stopped")
    chat.send("endless")
    chat.wait_token()
    states.check("streaming")
    chat.stop()
    chat.send("tools")
    page.wait_for_selector("#agent-state [data-phase=tool]", state="attached")
    states.check("tool running")
    chat.wait_end()
    chat.send("approval")
    page.get_by_role("button", name=re.compile("^(Approve|Allow)")).first.wait_for()
    states.check("approval")
    page.get_by_role("button", name=re.compile("^(Approve|Allow)")).first.click()
    chat.wait_end()
    chat.send("wrong key")
    chat.wait_end()
    states.check("error")


def test_axe_finds_nothing_after_a_run(states: States) -> None:
    chat, page = states.chat, states.page
    for message in ("tools", "tour"):
        chat.send(message)
        chat.wait_end()
    states.check("ended reply")
    page.locator("#chat .parts summary").first.click()
    page.locator("#chat").get_by_role("button").first.focus()
    states.check("older reply")
    run = page.get_attribute("#chat [data-context]", "data-context")
    page.evaluate("run => window.glassbox.emit('context', { run })", run)
    page.wait_for_selector("#viewer dialog[open]")
    states.check("context viewer")
    page.keyboard.press("Escape")
    page.evaluate("window.glassbox.emit('compare', {})")
    page.wait_for_selector("#viewer dialog[open]")
    page.wait_for_timeout(1000)
    states.check("compare")
    page.goto(f"{page.url.partition('?')[0]}?run={run}")
    page.wait_for_selector(".replay", state="visible")
    states.check("replay")


def test_axe_finds_nothing_on_the_first_frame(app: RunningApp, new_chat: Callable[..., Chat]) -> None:
    states = States(new_chat())
    page = states.page
    page.route("**/assets/page-*.js", lambda route: None)
    page.goto(app.url, wait_until="commit")
    page.wait_for_selector("#first-frame")
    states.check("first frame")
    page.unroute("**/assets/page-*.js")
    states.fail_if_any()


def tree(page: Page, selector: str) -> str:
    """The accessibility tree below an element, as a screen reader goes through it."""
    return page.locator(selector).aria_snapshot()


def test_controls_have_the_names_that_they_show(chat: Chat) -> None:
    page = chat.page
    expect(page.get_by_role("textbox", name="Message", exact=True)).to_have_count(1)
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    main = page.get_by_role("main")
    expect(main).to_have_count(1)
    assert main.locator("#prompt").count() == 1


def test_messages_begin_with_their_authors(chat: Chat) -> None:
    for message in ("hello", "hello again"):
        chat.send(message)
        chat.wait_end()
    said = re.sub(r"\s+", " ", tree(chat.page, "#chat"))
    places = [said.find(words) for words in ("You", "hello", "Scripted tour", "I am a script", "You", "hello again")]
    assert -1 not in places and places[:4] == sorted(places[:4]), said
    assert len(re.findall(r"\bYou\b", said)) >= 2 and said.count("Scripted tour") >= 2, said
    for name in ("You", "Scripted tour"):
        author = chat.page.locator("#chat").get_by_text(name, exact=True).first
        box = author.bounding_box()
        assert box is None or min(box["width"], box["height"]) <= 1, "it is for screen readers only"
    expect(chat.page.get_by_role("heading", level=1)).to_have_count(1)


def announced(chat: Chat, message: str) -> list[tuple[str, str]]:
    """Sends a message; returns what the live regions have said until the reply has ended."""
    chat.page.evaluate(_WATCH)
    chat.send(message)
    chat.wait_end()
    chat.page.wait_for_timeout(1500)
    found: list[Any] = chat.page.evaluate("window.announced")
    return [(str(role), str(text)) for role, text in found]


def test_phases_and_the_finished_reply_are_announced_and_tokens_are_not(chat: Chat) -> None:
    announcements = announced(chat, "hello")
    reply = chat.reply()
    whole = [text for _, text in announcements if reply in text]
    parts = [text for _, text in announcements if reply not in text and reply[:20] in text]
    assert parts == [], "no piece of a growing reply"
    assert len(whole) == 1, f"the reply once: {announcements}"
    assert 1 <= len(announcements) <= 8, announcements
    assert not [announcements for role, announcements in announcements if role in ("alert", "assertive")], "politely"


@pytest.mark.parametrize("message", ["hello", "tools"])
def test_each_change_is_announced_by_one_region(chat: Chat, message: str) -> None:
    announcements = announced(chat, message)
    said = [text for _, text in announcements]
    assert {role for role, _ in announcements} == {"status"}, announcements
    assert all(text != following for text, following in pairwise(said)), announcements
    assert not {"Streaming", "Running a tool …", "Done", "Idle"} & {*said}, "the panel's own words are for the eye"
    expect(chat.page.locator("#agent-state .panel .phase")).not_to_have_attribute("aria-live", re.compile("."))


def test_a_retry_is_announced_once(chat: Chat) -> None:
    said = [text for _, text in announced(chat, "busy")]
    assert said.count("Retrying: 2 of 3") == 1, said


def test_a_lost_connection_is_announced_once(chat: Chat) -> None:
    chat.page.evaluate(_WATCH)
    chat.send("endless")
    chat.wait_token()
    chat.page.evaluate("window.glassbox.emit('lost')")
    expect(chat.page.locator("#live-line [role=status]")).to_have_text("Connection lost. Reconnecting")
    chat.stop()
    announcements = [text for _, text in chat.page.evaluate("window.announced")]
    assert announcements.count("Connection lost. Reconnecting") == 1, announcements


def test_tools_and_their_phases_are_announced_in_few_words(chat: Chat) -> None:
    announcements = announced(chat, "tools")
    assert len(announcements) <= 14, announcements
    assert not [text for _, text in announcements if re.search(r"\d of 8", text)], "no partial results"


def test_failure_is_announced(chat: Chat) -> None:
    announcements = announced(chat, "wrong key")
    assert [text for _, text in announcements if "key" in text.lower()], announcements
