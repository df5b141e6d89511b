"""A served page in headless Chromium, with a recorder of when tokens are in the DOM.

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

from bench.process import cpu_s
from bench.server import Server

_QUIET_MS = 700
_OFF = "gpu quic background-networking component-update sync"
FLAGS = [*(f"--disable-{name}" for name in _OFF.split()), "--no-sandbox", "--no-first-run"]
FLAGS += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"]  # remote fonts fail at once

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
    """Returns the path of the browser: BENCH_CHROMIUM, else one on the PATH."""
    named = os.environ.get("BENCH_CHROMIUM")
    return shutil.which(named) if named else shutil.which("chromium") or shutil.which("google-chrome")


class Page:
    """The page of one visitor, which is loaded and quiet."""

    def __init__(self, context: BrowserContext, server: Server) -> None:
        self.site, self.tab = server.site, context.new_page()
        self.tab.add_init_script(_RECORDER)
        self.tab.goto(server.address(), wait_until="commit")
        self.wait("its prompt", "(s) => document.querySelector(s)?.offsetParent", self.site.prompt)
        replies = min(server.history, self.site.initial_messages) // 2
        drawn = "([s, least]) => document.querySelectorAll(s).length >= least"
        self.wait(f"{replies} earlier replies", drawn, [self.site.replies, replies])
        self.wait("quiet", "(ms) => bench.now() - bench.changed > ms", _QUIET_MS)

    def wait(self, what: str, expression: str, arg: object = None, timeout_s: float = 60) -> None:
        """Waits until an expression is true. Raises RuntimeError."""
        try:
            self.tab.wait_for_function(expression, arg=arg, polling=200, timeout=timeout_s * 1000)
        except TimeoutError:
            text = " ".join(self.tab.inner_text("body").split())[:500]
            raise RuntimeError(f"waited {timeout_s:.0f} s for {what}; the page has: {text!r}") from None

    def write(self, text: str) -> None:
        """Enters a message, which Enter then sends."""
        self.tab.click(self.site.prompt)
        self.tab.keyboard.insert_text(text)
        time.sleep(1)

    def send(self) -> None:
        """Sends the message."""
        self.tab.keyboard.press("Enter")

    def wait_for_token(self, i: int, timeout_s: float = 60) -> None:
        """Waits until a token is on the page."""
        self.wait(f"token {i}", "(i) => bench.seen[''].length > i", i, timeout_s)

    def wait_for_end(self) -> None:
        """Waits until the page shows that the reply has ended: its Stop is gone."""
        self.wait("the end", "(s) => !document.querySelector(s)?.offsetParent", self.site.stop)

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that match a selector."""
        return self.tab.locator(selector).all_text_contents()

    def recorded(self) -> dict[str, Any]:
        """The recorder's data; `skew_ms` is the difference of the page's clock from the machine's."""
        return dict(self.tab.evaluate("() => ({ ...bench, skew_ms: Date.now() - bench.now() })"))


@contextmanager
def open_page(playwright: Playwright, chromium: str, server: Server) -> Iterator[Page]:
    """Opens a page in a new browser, after a short reply in another session has warmed up the server."""
    browser: Browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS, headless=True)
    try:
        with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
            page = Page(context, server)
            page.write("N=5 R=0")
            page.send()
            page.wait_for_token(4)
            page.wait_for_end()
        with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
            yield Page(context, server)
    finally:
        browser.close()


def browser_cpu_s() -> float:
    """Returns the CPU time of all processes of the browser."""
    return cpu_s(psutil.Process().children(recursive=True), "chrom")
