"""What the conversation remembers, with the scripted backend: branches, six modes, and a kill in mid-reply."""

import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat

_CONFIG = """
[memory]
window_turns = 1
recall_turns = 1

[[backends]]
name = "Scripted tour"
kind = "scripted"
options = { speed = 4 }

[[backends]]
name = "Parrot"
kind = "langchain"
class = "langchain_core.language_models:FakeListChatModel"
options = { responses = ["Otto is a whale."] }
"""


_SUMMARY = """async () => {
  const conversation_id = new URL(location.href).searchParams.get('conversation');
  const body = JSON.stringify({ conversation_id, memory: 'summary' });
  const answer = await fetch('context', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body });
  return Boolean((await answer.json()).parts?.summary);
}"""


_IMPORT = """async () => {
  const turn = (n) => [
    { role: 'user', content: n ? `Boat ${n} is made of wood.` : 'My whale is called Otto.' },
    { role: 'assistant', content: 'I see.' },
  ];
  const body = JSON.stringify({ messages: Array.from({ length: 12 }, (_, n) => turn(n)).flat() });
  const headers = { 'Content-Type': 'application/json' };
  const answer = await fetch('conversations', { method: 'POST', headers, body });
  return (await answer.json()).conversation_id;
}"""


def wait_summary(chat: Chat) -> None:
    """Until there is a summary for the next turn: it is written in the background."""
    until = time.monotonic() + 60
    while not chat.page.evaluate(_SUMMARY):
        assert time.monotonic() < until, "no summary was written"
        chat.page.wait_for_timeout(300)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The scripted backend, with short memory."""
    with RunningApp(tmp_path_factory.mktemp("short"), _CONFIG) as app:
        yield app


@pytest.fixture
def person(short: RunningApp, open_chat: Callable[..., Chat]) -> Iterator[Chat]:
    chat = open_chat(short.url)
    yield chat
    assert chat.errors == []


def parts(chat: Chat) -> set[str]:
    """What the panel says that the context is made of."""
    received = chat.page.locator("#context .key li").all_text_contents()
    return {re.sub(r"[^a-z]", "", text) for text in received}


def said(chat: Chat, text: str) -> None:
    chat.send(text)
    chat.wait_end()


def test_six_modes_a_kill_and_all_is_there(person: Chat, short: RunningApp) -> None:
    page = person.page
    person.open(f"{short.url}?conversation={page.evaluate(_IMPORT)}")
    person.choose("backend", "Parrot")  # which also writes summaries, as a script cannot
    said(person, "Boats are made of wood.")
    seen = {}
    for mode in ("none", "full", "window", "tokens", "recall", "summary"):
        person.choose("memory", mode)
        said(person, f"What is my whale called? ({mode})")
        seen[mode] = parts(person)
        if mode == "summary":  # its first turn has none yet: it is written after it
            expect(page.locator("#context")).to_contain_text("no summary yet")
            wait_summary(person)
            said(person, "And now?")
            seen[mode] = parts(person)
    assert seen["none"] == {"system", "message", "chatformat"}
    assert seen["full"] == seen["window"] == seen["tokens"] == {"system", "recent", "message", "chatformat"}
    assert seen["recall"] == {"system", "recalled", "recent", "message", "chatformat"}
    assert seen["summary"] >= {"system", "summary", "message"}
    before = person.texts("user")
    person.choose("backend", "Scripted tour")
    person.send("tour")
    person.wait_token()
    short.process.send_signal(signal.SIGKILL)
    short.process.wait()
    short.start()
    person.open(page.url)
    after = person.texts("user")  # fewer messages are drawn
    assert after == [*before, "tour"][-len(after) :] and len(after) > 10
    expect(page.locator("#chat .bot-row").last).to_contain_text("Interrupted")
    assert page.locator("#memory input").input_value().startswith("summary")
    person.wait_next_end(page.locator("#chat").get_by_label("Retry").last.click)
    expect(page.locator("#chat .versions").last).to_contain_text("2/2")


def test_branches_are_made_and_walked(person: Chat) -> None:
    page = person.page
    said(person, "hello")
    said(person, "faults")
    page.locator("#chat .message-row").nth(1).hover()
    person.wait_next_end(page.locator("#chat .turn").get_by_label("Retry").first.click)
    assert person.texts("user") == ["hello"]
    expect(page.locator("#chat .versions")).to_contain_text("2/2")
    page.get_by_label("Earlier version").click()
    expect(page.locator("#chat [data-testid=user]").last).to_have_text("faults")
    expect(page.locator("#chat .versions").first).to_contain_text("1/2")
    page.reload()
    expect(page.locator("#chat [data-testid=user]").last).to_have_text("faults")
    page.get_by_label("Later version").click()
    expect(page.locator("#chat [data-testid=user]")).to_have_count(1)


def test_parameters_stand_in_the_menu_of_modes_and_are_kept(person: Chat, short: RunningApp) -> None:
    page = person.page
    person.open(f"{short.url}?conversation={page.evaluate(_IMPORT)}")
    for mode, shown in (("window", ["window-turns"]), ("summary", ["window-turns", "summary-tokens"]), ("none", [])):
        person.choose("memory", mode)
        for name in ("window-turns", "token-limit", "summary-tokens", "recall-turns"):
            expect(page.locator(f"#{name}")).to_have_count(int(name in shown))
    person.choose("memory", "window")
    page.click("#memory input")
    page.fill("#window-turns input", "2")
    page.press("#window-turns input", "Enter")
    expect(page.locator("#memory input")).to_have_value("window · Last turns · 2")
    expect(page.locator("#memory input")).to_be_focused()
    for n in range(2):
        said(person, f"hello {n}")
    expect(page.locator("#context")).to_contain_text("older than the last 2 turns")
    page.reload()
    expect(page.locator("#window-turns input")).to_have_value("2")


def test_a_drawn_context_opens_from_an_earlier_reply(person: Chat, tmp_path: Path) -> None:
    page = person.page
    said(person, "first words")
    said(person, "second words")
    page.locator("#chat .message-row").nth(1).hover()
    page.locator("#chat .turn :is([data-inspect], [data-context])").first.click()
    page.locator("#agent-state .older").wait_for()
    person.tab("Context")
    page.click("#context [data-context]")
    dialog = page.locator("#viewer dialog")
    expect(dialog).to_contain_text("first words")
    expect(dialog).not_to_contain_text("second words")
