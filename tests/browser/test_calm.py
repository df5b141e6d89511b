"""The page is calm: no jump at the hand-over, autoscroll only for a reader at the end, nothing too wide."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.app_process import RunningApp
from tests.browser.conftest import LIVE_TEXT, PACED, Chat

WATCH_LAST = """() => {
  const tops = window.__tops = new Set();
  const look = () => {
    const last = [...document.querySelectorAll('#chat [data-testid=bot] p, #live-reply [data-testid=bot] p')]
      .filter((p) => p.textContent.startsWith('Type approval')).at(-1);
    tops.add(last ? Math.round(last.getBoundingClientRect().top) : null);
    requestAnimationFrame(look);
  };
  look();
}"""
FROM_END = (
    "(() => { const c = document.querySelector('#scroll'); return c.scrollHeight - c.clientHeight - c.scrollTop })()"
)


@pytest.fixture(scope="module")
def app(paced_app: RunningApp) -> RunningApp:
    return paced_app


def test_hand_over_moves_nothing(chat: Chat) -> None:
    for _ in range(2):  # the second reply ends below the fold, where autoscroll has its part
        chat.send("tour")
        chat.page.wait_for_function("document.querySelector('#live-reply').textContent.includes('go wrong.')")
        chat.page.wait_for_timeout(60)
        chat.page.evaluate(WATCH_LAST)
        chat.wait_end()
        chat.page.wait_for_timeout(500)
        (top,) = chat.page.evaluate("[...window.__tops]")
        assert top is not None, "what was watched was there"


def test_growing_texts_hold_only_the_reply(chat: Chat) -> None:
    chat.page.evaluate(
        """(texts) => {
      const seen = window.__seen = new Set();
      new MutationObserver(() => {
        for (const one of document.querySelectorAll(texts)) seen.add(one.textContent.trim());
      }).observe(document.body, { subtree: true, childList: true, characterData: true });
    }""",
        LIVE_TEXT,
    )
    chat.send("faults")
    chat.wait_end()
    seen = chat.page.evaluate("[...window.__seen]")
    whole = max(seen, key=len)
    assert whole.startswith("Type one of these") and len(seen) > 5
    assert [text for text in seen if not whole.startswith(text[:20])] == [], "only beginnings of the reply"


def test_autoscroll_follows_only_a_reader_at_the_end(chat: Chat) -> None:
    chat.send("tour")
    chat.wait_end()
    chat.send("endless")
    chat.wait_token()
    chat.page.wait_for_function(f"document.querySelector('#scroll').scrollTop > 0 && {FROM_END} < 24")
    chat.page.mouse.move(400, 400)
    chat.page.mouse.wheel(0, -200)
    chat.page.wait_for_timeout(300)
    top = chat.page.evaluate("document.querySelector('#scroll').scrollTop")
    length = len(chat.live())
    chat.page.wait_for_function(f"document.querySelector('#live-reply').textContent.length > {length + 150}")
    assert chat.page.evaluate("document.querySelector('#scroll').scrollTop") == top
    chat.page.mouse.wheel(0, 5000)
    length = len(chat.live())
    chat.page.wait_for_function(f"document.querySelector('#live-reply').textContent.length > {length + 400}")
    assert chat.page.evaluate(FROM_END) < 24
    chat.stop()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_in_both_widths_and_schemes(new_chat: Callable[..., Chat], width: int, scheme: str) -> None:
    chat = new_chat(width=width, scheme=scheme)
    page = chat.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    page.click("[data-prompt] >> nth=0")
    chat.wait_end()
    chat.send("endless")
    chat.wait_token()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    chat.stop()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_page_that_lost_its_server_says_so_and_finds_the_conversation_again(
    tmp_path: Path, open_chat: Callable[..., Chat]
) -> None:
    with RunningApp(tmp_path, PACED) as app:
        chat = open_chat(app.url)
        chat.send("endless")
        chat.wait_token()
        chat.page.wait_for_timeout(1500)
        app.process.kill()
        app.process.wait()
        chat.page.wait_for_selector("#agent-state >> text=Connection lost")
        shown = chat.live()
        app.start()
        chat.page.wait_for_selector("#chat >> text=Interrupted", timeout=30_000)
        assert len(chat.texts("bot")[0]) > 20
        assert shown.startswith(chat.texts("bot")[0][:20])


def test_idle_page_asks_the_server_nothing(chat: Chat, app: RunningApp, new_chat: Callable[..., Chat]) -> None:
    asked: list[str] = []
    chat.page.wait_for_timeout(1500)
    chat.on("request", lambda request: asked.append(request.url))
    time.sleep(0)
    chat.page.wait_for_timeout(3000)
    assert [url for url in asked if "heartbeat" not in url] == []
    assert httpx.get(app.url + "healthz").json() == {"status": "ok"}
