"""The running app, as its own process with the real local model, in a real headless Chromium.

Playwright keeps an event loop running in this thread until it is closed, which pytest-asyncio would trip over: so these
fixtures end with this package, not with the session.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, TimeoutError, expect

from bench.ports import free_port
from tests.chromium import open_chromium

ROOT = Path(__file__).parents[2]
_SCRIPTED = """
[[backends]]
name = "Scripted tour"
kind = "scripted"

[[backends]]
name = "Parrot"
kind = "langchain"
class = "langchain_core.language_models:FakeListChatModel"
options = { responses = ["Hello."] }

[[backends]]
name = "Keyed"
kind = "openai"
model = "m"
base_url = "http://127.0.0.1:9/v1"
key = "NO_SUCH_KEY"
"""
_ENDED = "#agent-state :is([data-phase=complete], [data-phase=stopped], [data-phase=error])"


class RunningApp:
    """`python app.py` on a free port, with its data in `folder`; by default as configured but for shorter replies.

    A model this small may ramble on for as long as it is allowed to.
    """

    def __init__(self, folder: Path, config: str = "[limits]\nreply_tokens = 800\n", **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.data = folder / "data"
        self.log = folder / "log.txt"
        self.config = folder / "glassbox.toml"
        self.config.write_text(config)
        self.environment = environment

    def start(self) -> None:
        command = [sys.executable, str(ROOT / "app.py"), "--port", str(self.port), "--config", str(self.config)]
        environment = {**os.environ, "GLASSBOX_DATA": str(self.data), **self.environment}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(self.log.read_text())
            time.sleep(0.1)

    def _ready(self) -> bool:
        user, _, password = self.environment.get("GLASSBOX_AUTH", "").partition(":")
        try:
            told = httpx.get(self.url + "backends", timeout=2, auth=(user, password) if user else None).json()
        except httpx.HTTPError:
            return False
        return "loading" not in [b["state"] for b in told]

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="package")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    running = RunningApp(tmp_path_factory.mktemp("app"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="package")
def scripted_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """As `app`, for tests that need no model: the backends are scripted, of one reply, and without their key."""
    running = RunningApp(tmp_path_factory.mktemp("scripted"), _SCRIPTED)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with open_chromium() as browser:
        yield browser


expect.set_options(timeout=30_000)  # five seconds are too few where other tests run beside these


_WATCH_PHASES = """() => {
  const state = document.querySelector('#agent-state'), phases = window.phases = [];
  const look = () => {
    const phase = state.querySelector('[data-phase]').dataset.phase;
    if (phase !== phases.at(-1)) phases.push(phase);
  };
  new MutationObserver(look).observe(state, { attributes: true, subtree: true, attributeFilter: ['data-phase'] });
}"""


class Chat:
    """One page, used as a person would."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.errors: list[str] = []
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.open(url)

    def open(self, url: str) -> None:
        self.page.goto(url)
        self.page.wait_for_selector("#prompt textarea", state="visible")
        # the page's first event is done when the note on the backends is there
        self.page.wait_for_function("document.querySelector('#about p')?.textContent")

    def choose(self, dropdown: str, name: str) -> None:
        self.page.click(f"#{dropdown} input")
        self.page.get_by_role("option", name=name).click()

    def type(self, text: str) -> None:
        self.page.fill("#prompt textarea", text)

    def send(self, text: str) -> None:
        """Types and sends; returns when the run has begun."""
        self.type(text)
        self.page.press("#prompt textarea", "Enter")
        self.page.wait_for_function("document.querySelector('#prompt textarea').value === ''")

    def wait_token(self) -> None:
        self.page.wait_for_selector("#live-reply [data-testid=bot]")

    def wait_end(self) -> None:
        self.page.wait_for_selector(_ENDED, state="attached", timeout=60_000)
        self.page.wait_for_selector("#send", state="visible")
        self.page.wait_for_selector("#live-reply [data-testid=bot]", state="detached")

    def stop(self) -> None:
        with suppress(TimeoutError):  # so small a model may have come to an end by itself
            self.page.click("#stop", timeout=3000)
        self.wait_end()

    def start_over(self) -> None:
        """An empty conversation, whatever there was before."""
        if self.page.is_visible("#stop"):
            self.stop()
        if not self.page.is_visible("#intro"):
            self.clear()
        self.type("")

    def clear(self) -> None:
        """Deletes the conversation, and says yes when asked."""
        self.page.click("#clear")
        self.page.locator(".sure").get_by_text("Delete", exact=True).click()
        self.page.wait_for_selector("#intro", state="visible")

    def live(self) -> str:
        return (self.page.text_content("#live-reply") or "").strip()

    def texts(self, who: str) -> list[str]:
        """What is drawn of the ended conversation: "user" or "bot"."""
        return [t.strip() for t in self.page.locator(f"#chat [data-testid={who}]").all_text_contents()]

    def reply(self) -> str:
        """The text of the last reply, without its thinking and its tool calls."""
        return self.page.locator("#chat .bot-row:not(:has(.parts)) [data-testid=bot]").last.inner_text().strip()

    def part(self, name: str, place: str = "#chat") -> Locator:
        """A thought or a tool's call; of the reply that grows in `#live-parts`."""
        title = self.page.locator("summary b").get_by_text(name, exact=True)
        return self.page.locator(f"{place} .parts details").filter(has=title).last

    def bar(self, name: str) -> Locator:
        """The timeline's bar of a step; of several, the last."""
        button = self.page.locator("button").get_by_text(name, exact=True)
        return self.page.locator("#timeline .bars > li").filter(has=button).last

    def wait_toast(self, text: str) -> None:
        self.page.locator(".toast-wrap").get_by_text(text).first.wait_for(timeout=10_000)

    def watch_phases(self) -> None:
        """From now on, until the page is loaded again, `phases` has those that are shown."""
        self.page.evaluate(_WATCH_PHASES)

    @property
    def phases(self) -> list[str]:
        return list(self.page.evaluate("window.phases"))

    @property
    def phase(self) -> str | None:
        return self.page.get_attribute("#agent-state [data-phase]", "data-phase")


@pytest.fixture
def new_chat(app: RunningApp, browser: Browser) -> Iterator[Callable[..., Chat]]:
    """Opens a page as a new visitor, or (`like`) as the visitor of another page."""
    contexts = []

    def open_one(url: str = "", like: Chat | None = None) -> Chat:
        context = like.page.context if like else browser.new_context(viewport={"width": 1280, "height": 800})
        contexts.append(context)
        return Chat(context.new_page(), url or app.url)

    yield open_one
    for context in contexts:
        context.close()


@pytest.fixture
def chat(new_chat: Callable[..., Chat]) -> Chat:
    return new_chat()
