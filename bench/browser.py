"""Opens a served page in headless Chromium and measures one reply, one Stop, or one reply's tools in it.

Model, server and browser are on one machine and share its clock: times are milliseconds since 1970 on all sides.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from playwright.sync_api import Browser, BrowserContext, Playwright, TimeoutError

from bench.model import numbers, wait_for_end
from bench.report import percentile
from bench.server import Server, cpu_s, others_cpu_s
from bench.tools import Case, lateness

RATE = 50
"""Tokens a second in every measured reply."""
_STOP_OF, _STOP_AT = 1000, 50
"""Stop is clicked when token 50 of 1000 is on the page."""
_QUIET_MS = 700
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",  # fonts from afar fail at once
]

# Runs before the page's own scripts. `seen[''][i]` is when token i was first in the DOM; see SERIES for other keys.
_RECORDER = r"""
(() => {
  const now = () => performance.timeOrigin + performance.now();
  const seen = { '': [], a: [], b: [] };
  const bench = window.bench = { now, seen, changed: now(), longTasks: [], clicks: [], enters: [] };
  const newest = (text) => /^[^]*w(\d{4})([ab]?)/.exec(text) ?? [];
  new MutationObserver((changes) => {
    const at = bench.changed = now();
    for (const change of changes)
      for (const node of change.type === 'characterData' ? [change.target] : change.addedNodes) {
        const [, last = -1, series = ''] = newest(node.textContent ?? '');
        while (seen[series].length <= Number(last)) seen[series].push(at);
      }
  }).observe(document, { subtree: true, childList: true, characterData: true });
  new PerformanceObserver((list) => {
    for (const { startTime, duration } of list.getEntries())
      bench.longTasks.push([performance.timeOrigin + startTime, duration]);
  }).observe({ type: 'longtask', buffered: true });
  const moment = (event) => performance.timeOrigin + event.timeStamp;
  addEventListener('click', (event) => bench.clicks.push(moment(event)), true);
  addEventListener('keydown', (event) => { if (event.key === 'Enter') bench.enters.push(moment(event)); }, true);
})();
"""


def find_chromium() -> str | None:
    """The path of the browser: BENCH_CHROMIUM where it is set, else what the PATH has."""
    named = os.environ.get("BENCH_CHROMIUM")
    return shutil.which(named) if named else shutil.which("chromium") or shutil.which("google-chrome")


class Page:
    """One visitor's page, drawn and quiet."""

    def __init__(self, context: BrowserContext, server: Server) -> None:
        self.site, self._page = server.site, context.new_page()
        self._page.add_init_script(_RECORDER)
        self._page.goto(server.address(), wait_until="commit")
        self._wait("its prompt", "(s) => document.querySelector(s)?.offsetParent", self.site.prompt)
        replies = min(server.history, self.site.most_drawn) // 2
        drawn = "([s, least]) => document.querySelectorAll(s).length >= least"
        self._wait(f"{replies} earlier replies", drawn, [self.site.replies, replies])
        self._wait("quiet", "(ms) => bench.now() - bench.changed > ms", _QUIET_MS)

    def _wait(self, what: str, expression: str, arg: object = None, timeout_s: float = 60) -> None:
        try:
            self._page.wait_for_function(expression, arg=arg, polling=200, timeout=timeout_s * 1000)
        except TimeoutError:
            raise RuntimeError(f"waited {timeout_s:.0f} s for {what}; the page has: {self._text()!r}") from None

    def _text(self) -> str:
        return " ".join(self._page.inner_text("body").split())[:500]

    def write(self, text: str) -> None:
        self._page.click(self.site.prompt)
        self._page.keyboard.insert_text(text)
        time.sleep(1)

    def send(self) -> None:
        self._page.keyboard.press("Enter")

    def stop(self) -> None:
        self._page.click(self.site.stop)

    def wait_for_token(self, i: int, timeout_s: float = 60) -> None:
        self._wait(f"token {i}", "(i) => bench.seen[''].length > i", i, timeout_s)

    def wait_for_end(self) -> None:
        """Until the page says that the reply has ended: its Stop is gone."""
        self._wait("the end", "(s) => !document.querySelector(s)?.offsetParent", self.site.stop)

    def open_parts(self, count: int) -> None:
        """Opens so many tools' calls as soon as they are there, as somebody does who watches them."""
        opened = """([selector, count]) => {
          const parts = [...document.querySelectorAll(`${selector} details`)];
          return parts.length >= count && parts.every((part) => part.open = true);
        }"""
        self._wait(f"{count} calls", opened, [self.site.parts, count])

    def all_parts(self) -> str:
        """All text of tools' calls."""
        return "\n".join(self._page.locator(self.site.parts).all_text_contents())

    def recorded(self) -> dict[str, Any]:
        """What the recorder has; `skew_ms` is how far the page's clock has drifted from the machine's."""
        return dict(self._page.evaluate("() => ({ ...bench, skew_ms: Date.now() - bench.now() })"))

    def last_reply(self) -> str:
        texts = [text for text in self._page.locator(self.site.replies).all_text_contents() if text.strip()]
        return texts[-1] if texts else ""


@contextmanager
def open_page(playwright: Playwright, chromium: str, server: Server) -> Iterator[Page]:
    """A page in a fresh browser, after a short reply in another session has made the server do what it does once."""
    browser: Browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS, headless=True)
    try:
        for warm_up in (True, False):
            with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
                page = Page(context, server)
                if not warm_up:
                    yield page
                    return
                page.write("N=5 R=0")
                page.send()
                page.wait_for_token(4)
                page.wait_for_end()
    finally:
        browser.close()


def _browser_cpu_s() -> float:
    """Seconds of CPU of all processes of the browser."""
    return cpu_s(p for p in psutil.Process().children(recursive=True) if _is_browser(p))


def _is_browser(process: psutil.Process) -> bool:
    try:
        return "chrom" in process.name()
    except psutil.NoSuchProcess:
        return False


def measure_reply(page: Page, server: Server, tokens: int) -> dict[str, Any]:
    """Figures of one reply. Times in milliseconds; CPU from Enter until 0.4 s after the page has ended the reply.

    A token is behind schedule by its first moment in the DOM less when the script wanted it emitted, so a server so
    slow that it holds its model back cannot hide that.
    """
    asked = f"N={tokens} R={RATE}"
    page.write(asked)
    server_s, browser_s = server.cpu_s(), _browser_cpu_s()
    page.send()
    page.wait_for_token(tokens - 1, 60 + 10 * tokens / RATE)
    page.wait_for_end()
    time.sleep(0.4)
    server_s, browser_s = server.cpu_s() - server_s, _browser_cpu_s() - browser_s
    found, script = page.recorded(), wait_for_end(server.log, asked, 5)
    if script is None:
        raise RuntimeError("the reply is on the page, but the model has not logged its end")
    entered = found["enters"][-1]
    behind = [seen - script["start_ms"] - i * 1000 / RATE for i, seen in enumerate(found["seen"][""])]
    long_tasks = [duration for at, duration in found["longTasks"] if at >= entered]
    return {
        "behind_p50_ms": percentile(behind, 50),
        "behind_p95_ms": percentile(behind, 95),
        "first_token_ms": found["seen"][""][0] - entered,
        "server_cpu_ms_per_token": server_s * 1000 / tokens,
        "browser_cpu_ms_per_token": browser_s * 1000 / tokens,
        "long_tasks": len(long_tasks),
        "long_tasks_ms": sum(long_tasks),
        "complete_in_order": numbers(page.last_reply()) == list(range(tokens)),
        "clock_skew_ms": found["skew_ms"],
    }


def measure_stop(page: Page, server: Server) -> dict[str, Any]:
    """`stop_ms` is from the click to the end of the model's own work; None if that did not end before its script."""
    asked = f"N={_STOP_OF} R={RATE}"
    page.write(asked)
    page.send()
    page.wait_for_token(_STOP_AT)
    page.stop()
    script = wait_for_end(server.log, asked, _STOP_OF / RATE + 15)
    page.wait_for_end()
    clicked = page.recorded()["clicks"][-1]
    if script is None or script["how"] != "cancelled":
        return {"stop_ms": None}
    late = [at for at in script["emitted_ms"] if at > clicked]
    return {"stop_ms": script["end_ms"] - clicked, "tokens_after_click": len(late)}


def measure_tools(page: Page, server: Server, case: Case) -> dict[str, Any]:
    """`late_ms` has for each mark how long after its yield it was first in the DOM, in milliseconds."""
    page.write(case.asked)
    begun, by_others = time.time(), others_cpu_s(psutil.Process())
    page.send()
    page.open_parts(len(case.series))
    page.wait_for_token(case.count - 1)
    page.wait_for_end()
    by_others = (others_cpu_s(psutil.Process()) - by_others) / (time.time() - begun)
    time.sleep(0.4)
    found = page.recorded()
    late = lateness(case, page.all_parts(), found["seen"])
    return {"late_ms": [round(ms, 1) for ms in late], "clock_skew_ms": found["skew_ms"], "others_cpu": by_others}
