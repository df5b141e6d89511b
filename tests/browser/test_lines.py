"""What a browser follows beside the page: a native EventSource that loses its line, the example page, the routes'
description.
"""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page

from tests.app_process import RunningApp
from tests.browser.hostile import MARKUP
from tests.tcp import TcpProxy

_LONG = "x" * 200
_CONFIG = f"""
[limits]
reply_tokens = 500

[tools]
enabled = ["calculator", "count", "tests.browser.hostile:shout"]

[[backends]]
name = "Scripted tour"
kind = "scripted"

[[backends]]
name = "Slow tour"
kind = "scripted"
options = {{ speed = 0.4 }}

[[backends]]
name = "Hostile"
kind = "langchain"
class = "langchain_core.language_models:FakeListChatModel"
options = {{ sleep = 0.002, responses = [{json.dumps(f"{MARKUP} {_LONG}")}] }}
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    with RunningApp(tmp_path_factory.mktemp("lines"), _CONFIG) as app:
        yield app


@pytest.fixture
def visit(page: Page) -> Iterator[Callable[..., Page]]:
    """Opens a page as a new visitor; every error of a script fails the test."""
    errors: list[str] = []

    def open_one(url: str, width: int = 1280) -> Page:
        page.set_viewport_size({"width": width, "height": 800})
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield open_one
    assert errors == []


# EventSource


@pytest.fixture
def proxy(house: RunningApp) -> Iterator[TcpProxy]:
    with TcpProxy(house.port) as proxy:
        yield proxy


_LISTEN = """(query) => {
  const source = window.source = new EventSource('/stream?' + new URLSearchParams(query));
  const received = window.received = { seqs: [], text: '', opened: 0, dropped: 0, last: null };
  source.onopen = () => { received.opened++; };
  source.onerror = () => { received.dropped++; };
  const types = ['run', 'status', 'context', 'model_start', 'model_end', 'reasoning', 'token', 'chain_start',
    'chain_end', 'tool_start', 'tool_output', 'tool_end', 'approval', 'state', 'done', 'stopped', 'failed'];
  for (const type of types) source.addEventListener(type, (e) => {
    const event = JSON.parse(e.data);
    received.seqs.push(event.seq);
    if (Number(e.lastEventId) !== event.seq) throw new Error(`id ${e.lastEventId} of event ${event.seq}`);
    if (type === 'token') received.text += event.content;
    if (['done', 'stopped', 'failed'].includes(type)) received.last = event;
  });
}"""


def runs_of(house: RunningApp) -> set[str]:
    with closing(sqlite3.connect(f"file:{house.data / 'glassbox.db'}?mode=ro", uri=True)) as database:
        return {row[0] for row in database.execute("SELECT id FROM runs")}


def test_an_eventsource_that_loses_its_line_in_mid_reply_ends_with_the_reply_once(
    house: RunningApp, proxy: TcpProxy, visit: Callable[..., Page]
) -> None:
    page = visit(proxy.url + "/example")
    before = runs_of(house)
    page.evaluate(_LISTEN, {"query": "tour", "backend": "Slow tour"})
    for words in ("What you are looking at", "model.astream"):
        page.wait_for_function(f"received.text.includes('{words}')")
        heard = page.evaluate("received.seqs.length")
        proxy.cut()
        page.wait_for_function(f"received.seqs.length > {heard} || received.last")
    page.wait_for_function("source.readyState === EventSource.CLOSED")
    received: dict[str, Any] = page.evaluate("received")
    assert received["last"]["type"] == "complete"
    assert received["text"] == received["last"]["content"]
    assert received["seqs"] == list(range(1, len(received["seqs"]) + 1)), "each event once, and in order"
    assert runs_of(house) - before == {received["last"]["run_id"]}, "it started one run"
    statuses = [answer.split(b" ")[1] for answer in proxy.answers]
    assert statuses == [b"200", b"200", b"200", b"204"], "it came back after each cut, and after the end"
    assert (received["opened"], received["dropped"]) == (3, 4)
    first, *again = proxy.requests
    assert "last-event-id" not in first.lower()
    came_back = [int(re.findall(r"^last-event-id: (\d+)", asked, re.I | re.M)[0]) for asked in again]
    assert came_back == sorted(came_back) and came_back[-1] == received["seqs"][-1]


# The example page


class Example:
    """The example page, used as a person would."""

    def __init__(self, page: Page, over: str = "sse", backend: str = "") -> None:
        self.page = page
        page.wait_for_selector("#backend:enabled")
        page.locator(f"label:has([value={over}])").click()
        if backend:
            page.select_option("#backend", backend)

    def send(self, text: str) -> None:
        earlier = self.page.locator("#talk .user").count()
        self.page.fill("#prompt", text)
        self.page.press("#prompt", "Enter")
        self.page.locator("#talk .user").nth(earlier).wait_for()

    def wait_end(self, phase: str = "complete") -> None:
        self.page.wait_for_selector("body:not(.busy)")
        assert self.page.get_attribute("#phase", "data-phase") == phase

    @property
    def reply(self) -> Locator:
        return self.page.locator("#talk .reply").last

    @property
    def texts(self) -> list[str]:
        """Of each reply."""
        return [
            "".join(reply.locator("p.text").all_text_contents()) for reply in self.page.locator("#talk .reply").all()
        ]

    def kept(self) -> list[dict[str, Any]]:
        """The conversation, as the app has it."""
        [conversation] = parse_qs(urlsplit(self.page.get_attribute("#there", "href") or "").query)["conversation"]
        origin = self.page.evaluate("location.origin")
        answer = self.page.context.request.get(f"{origin}/conversations/{conversation}")
        return list(answer.json()["messages"])


@pytest.mark.parametrize("over", ["sse", "ws"])
def test_the_example_holds_a_conversation(house: RunningApp, visit: Callable[..., Page], over: str) -> None:
    page = visit(house.url + "example")
    sockets: list[str] = []
    page.on("websocket", lambda one: sockets.append(one.url))
    streams: list[str] = []
    page.on("request", lambda one: streams.append(one.url) if one.url.endswith("/stream") else None)
    example = Example(page, over)
    for message in ("My name is Zoe.", "What is my name?"):
        example.send(message)
        example.wait_end()
    kept = example.kept()
    assert [m["role"] for m in kept] == ["user", "assistant"] * 2
    assert [m["content"] for m in kept if m["role"] == "user"] == ["My name is Zoe.", "What is my name?"]
    assert all(text.strip() for text in example.texts)
    assert example.texts == [m["content"] for m in kept if m["role"] == "assistant"]
    assert (len(sockets), len(streams)) == ((1, 0) if over == "ws" else (0, 2))


@pytest.mark.parametrize("over", ["sse", "ws"])
def test_the_example_stops_a_run(house: RunningApp, visit: Callable[..., Page], over: str) -> None:
    example = Example(visit(house.url + "example"), over, "Scripted tour")
    example.send("endless")
    example.reply.get_by_text("5 6").wait_for()
    example.page.click("#stop")
    example.wait_end("stopped")
    assert "Stopped" in example.reply.inner_text()
    assert example.kept()[-1]["content"] == example.texts[-1]
    example.send("hello")
    example.wait_end()
    assert "I am a script" in example.texts[-1]


@pytest.mark.parametrize("over", ["sse", "ws"])
@pytest.mark.parametrize(("button", "says"), [("Approve", "It said: Hello"), ("Refuse", "refused")])
def test_the_example_answers_what_waits(
    house: RunningApp, visit: Callable[..., Page], over: str, button: str, says: str
) -> None:
    example = Example(visit(house.url + "example"), over, "Scripted tour")
    example.send("approval")
    card = example.reply.locator("details.asks")
    card.get_by_text('"text": "Hello"').wait_for()
    assert example.page.get_attribute("#phase", "data-phase") == "approval"
    card.get_by_role("button", name=button).click()
    example.wait_end()
    assert example.page.locator(".asks").count() == 0
    assert says in (example.reply.locator("details").text_content() or "")
    assert "You have decided" in example.texts[-1]


@pytest.mark.parametrize("over", ["sse", "ws"])
def test_hostile_text_stays_text_on_the_example(house: RunningApp, visit: Callable[..., Page], over: str) -> None:
    page = visit(house.url + "example")
    example = Example(page, over, "Hostile")
    example.send(MARKUP)
    example.wait_end()
    example.send(f"/shout {MARKUP}")
    example.wait_end()
    shown = [*page.locator(".user").all(), *page.locator("p.text").all(), *page.locator(".reply details pre").all()]
    assert len(shown) == 5
    for box in shown:
        assert MARKUP in (box.text_content() or "")
    assert page.locator(":is(.user, .reply) :is(script, img, a, h1)").count() == 0
    assert page.evaluate("window.hacked") is None


@contextmanager
def nothing_sticks_out(page: Page, width: int) -> Iterator[None]:
    yield
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for box in ("#talk", "header", "aside", "form"):
        assert (
            page.evaluate(f"(({{scrollWidth: all, clientWidth: seen}}) => all - seen)(document.querySelector('{box}'))")
            <= 0
        )


@pytest.mark.parametrize("width", [390, 1280])
def test_the_example_fits_at_any_width(house: RunningApp, visit: Callable[..., Page], width: int) -> None:
    page = visit(house.url + "example", width)
    example = Example(page, "sse", "Scripted tour")
    with nothing_sticks_out(page, width):
        page.click("#how summary")
    for message, backend in (("tour", "Scripted tour"), (_LONG, "Hostile"), (f"/shout {_LONG}", "Hostile")):
        page.select_option("#backend", backend)
        with nothing_sticks_out(page, width):
            example.send(message)
            example.reply.locator("> *").first.wait_for()
        with nothing_sticks_out(page, width):
            example.wait_end()
            for box in page.locator(".reply details:not([open]) > summary").all():
                box.click()
    page.select_option("#backend", "Scripted tour")
    example.send("approval")
    with nothing_sticks_out(page, width):
        page.locator("details.asks").wait_for()
    page.click("#stop")
    example.wait_end("stopped")


# The description


def test_the_routes_are_described_without_any_other_host(house: RunningApp, page: Page) -> None:
    asked: list[str] = []
    failed: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("response", lambda answer: failed.append(answer.url) if answer.status >= 400 else None)
    page.on("console", lambda message: failed.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(house.url + "docs")
    page.wait_for_selector(".opblock")
    described = page.context.request.get(house.url + "openapi.json").json()["paths"]
    shown = {text.replace("\u200b", "") for text in page.locator(".opblock-summary-path").all_text_contents()}
    assert shown == set(described)
    assert {"/stream", "/runs/{run_id}/events", "/runs/{run_id}/stop", "/batch", "/agui"} <= shown
    page.locator(".opblock-summary-path", has_text="/memory").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    page.locator(".responses-table.live-responses-table").get_by_text("window_turns").first.wait_for()
    assert {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))} == {
        urlsplit(house.url).netloc
    }
    assert failed == []
