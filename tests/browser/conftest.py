"""The running app, as its own process with the real local model, in a real headless Chromium.

Playwright keeps an event loop running in this thread until it is closed, which pytest-asyncio would trip over: so these
fixtures end with this package, not with the session.
"""

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Locator, Page, TimeoutError, expect

from tests.app_process import RunningApp
from tests.chromium import open_chromium

SCRIPTED = """
[[backends]]
name = "Scripted tour"
kind = "scripted"
options = { speed = 4 }

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
PACED = SCRIPTED.replace("speed = 4", "speed = 1")
DESKTOP = {"width": 1280, "height": 800}
LIVE_TEXT = "#live-reply [data-testid=bot]:not(:has(.thought-group))"
"""The texts of the growing reply, without its thinking and its tool calls."""
_REPLY = """() => {
  const rows = [...document.querySelectorAll('#chat .message-row')];
  const start = rows.findLastIndex((row) => row.matches('.user-row'));
  const isText = '[data-testid]:not(:has(.parts, .note, .failure))';
  const texts = rows.slice(start + 1).map((row) => row.querySelector(isText)).filter(Boolean);
  return texts.map((text) => text.innerText.trim()).join('\\n');
}"""
_ENDED = "#agent-state :is([data-phase=complete], [data-phase=stopped], [data-phase=error])"
_EXCHANGES = Path(__file__).with_name("exchanges.js")
_RUN = "document.querySelector('#agent-state [data-run]')?.dataset.run ?? ''"


@pytest.fixture(scope="package")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The app without a real model: its backends are scripted, of one reply, and without their key."""
    with RunningApp(tmp_path_factory.mktemp("app"), SCRIPTED) as app:
        yield app


@pytest.fixture(scope="package")
def paced_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """As `app`, for tests of what is seen while a reply streams: it does so at the pace that is the default."""
    with RunningApp(tmp_path_factory.mktemp("paced"), PACED) as app:
        yield app


@pytest.fixture(scope="package")
def model_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The app as it is by default, with the real local model."""
    with RunningApp(tmp_path_factory.mktemp("model")) as app:
        yield app


class Contexts:
    """Browser contexts that tests share, each with a tab that is kept: a new process and cold caches cost as much
    again as loading the page. Each test finds them without cookies and storage, as a new visitor does.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._free: dict[str, list[BrowserContext]] = {}

    @contextmanager
    def lend(self, **options: Any) -> Iterator[BrowserContext]:
        """A new visitor's context; it is closed where the block fails."""
        free = self._free.setdefault(repr(options), [])
        context = free.pop() if free else self._open(**options)
        if not context.pages:
            context.new_page()
        try:
            yield context
            _clean(context, options.get("viewport", DESKTOP))
            free.append(context)
        except BaseException:
            context.close()
            raise

    @contextmanager
    def own(self, **options: Any) -> Iterator[BrowserContext]:
        """A context for a test whose traces cannot be removed, such as a clock."""
        context = self._open(**options)
        try:
            yield context
        finally:
            context.close()

    def _open(self, **options: Any) -> BrowserContext:
        context = self._browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
        context.add_init_script(path=_EXCHANGES)
        return context

    @contextmanager
    def visit(self, url: str) -> Iterator["Chat"]:
        """The page as a new visitor has it."""
        with self.lend() as context:
            chat = Chat(context.pages[0], url)
            yield chat
            chat.leave()


def _clean(context: BrowserContext, viewport: Any) -> None:
    """Closes all pages but the first, which is left as a new one, and forgets what they have stored."""
    kept, *others = context.pages
    for page in others:
        page.close()
    kept.unroute_all()
    kept.mouse.move(0, 0)
    if kept.viewport_size != viewport:
        kept.set_viewport_size(viewport)
    if kept.url.startswith("http"):
        try:
            kept.goto(urljoin(kept.url, "/healthz"))  # a small answer from the same origin
            kept.evaluate("localStorage.clear(); sessionStorage.clear()")
        except Error:  # the app has ended
            kept.close()
    context.clear_cookies()
    context.clear_permissions()


@pytest.fixture(scope="package")
def contexts() -> Iterator[Contexts]:
    with open_chromium() as browser:
        yield Contexts(browser)


expect.set_options(timeout=30_000)  # five seconds are too few where other tests run beside these


_WATCH_PHASES = """() => {
  const state = document.querySelector('#agent-state'), phases = window.phases = [];
  const look = () => {
    const phase = state.querySelector('[data-phase]').dataset.phase;
    if (phase !== phases.at(-1)) phases.push(phase);
  };
  new MutationObserver(look).observe(state, { attributes: true, subtree: true, attributeFilter: ['data-phase'] });
}"""


_IMPORT = """async (body) => {
  const one = (selector) => document.querySelector(selector), empty = () => one('#intro')?.offsetParent;
  const until = async (found, click) => {  // a click is lost while the page still works on another
    for (let tries = 0; !found(); tries++) {
      if (tries > 1500) throw new Error(`waited in vain: ${found}`);
      if (tries % 75 === 0) one(click)?.click();
      await new Promise((done) => setTimeout(done, 20));
    }
  };
  const headers = { 'Content-Type': 'application/json' };
  const answer = await fetch('conversations', { method: 'POST', headers, body: JSON.stringify(body) });
  const id = (await answer.json()).conversation_id, link = `#sidebar [data-id='${id}'] a`;
  await until(empty, '#sidebar .new');
  window.glassbox.emit('conversations');
  await until(() => one(link));
  await until(() => location.search.includes(id) && one('#chat [data-testid=bot]') && one('#chat .turn'), link);
}"""


class Chat:
    """One page, used as a person would."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.errors: list[str] = []
        self._earlier_run = ""
        self._listeners: list[tuple[Any, Callable[..., Any]]] = []
        page.set_default_timeout(30_000)
        self.on("pageerror", self._add_error)
        self.open(url)

    def _add_error(self, error: Error) -> None:
        self.errors.append(error.stack or str(error))
        print("script error:", self.errors[-1])  # whole, where pytest would shorten it

    def on(self, event: Any, handler: Callable[..., Any]) -> None:
        """Calls the handler for each such event of the page, until the test leaves the page."""
        self.page.on(event, handler)
        self._listeners.append((event, handler))

    def leave(self) -> None:
        """Removes all listeners, for whoever has the page next."""
        for event, handler in self._listeners:
            self.page.remove_listener(event, handler)

    def open(self, url: str) -> None:
        self.page.goto(url)
        self.wait_ready()

    def wait_ready(self) -> None:
        """Waits until the page can be used."""
        self.page.wait_for_selector("#prompt textarea", state="visible")
        self.page.wait_for_selector("#first-frame", state="detached")  # until then, it has the focus
        # the page's first event is done when the note on the backends is there
        self.page.wait_for_function("document.querySelector('#about p')?.textContent")
        # and its menu of models, where the backend has several
        self.page.wait_for_function("!glassbox.choices?.model?.length || document.querySelector('#model input')")

    def choose(self, dropdown: str, name: str) -> None:
        self.page.click(f"#{dropdown} input")
        self.page.get_by_role("option", name=name).click()
        expect(self.page.locator(f"#{dropdown} input")).to_have_value(re.compile(f"^{re.escape(name)}"))

    def tab(self, name: str) -> None:
        """Opens a tab of the panel: Run, Context or Events."""
        self.page.locator("#agent-state [role=tab]").get_by_text(name, exact=True).click()

    def type(self, text: str) -> None:
        self.page.fill("#prompt textarea", text)

    def send(self, text: str) -> None:
        """Types and sends; returns when the run has begun."""
        self._earlier_run = self.page.evaluate(_RUN)
        self.type(text)
        self.page.press("#prompt textarea", "Enter")
        self.page.wait_for_function("document.querySelector('#prompt textarea').value === ''")

    def wait_token(self) -> None:
        self.page.wait_for_selector(LIVE_TEXT)

    def wait_end(self) -> None:
        """Waits until the run has ended: of a message that was just sent, its own, not the one before it."""
        another = f':not([data-run="{self._earlier_run}"])' if self._earlier_run else ""
        self.page.wait_for_selector(_ENDED + another, state="attached", timeout=60_000)
        self._earlier_run = ""
        self.page.wait_for_selector("#send", state="visible")
        self.page.wait_for_selector("#live-reply [data-testid=bot]", state="detached")

    def wait_next_end(self, begin: Callable[[], Any]) -> None:
        """Begins a run, and waits until that one has ended, however short it is."""
        self.page.evaluate("document.querySelector('#agent-state [data-phase]').dataset.phase = 'asked'")
        begin()
        self.wait_end()

    def stop(self) -> None:
        with suppress(TimeoutError):  # so small a model may have come to an end by itself
            self.page.click("#stop", timeout=3000)
        self.wait_end()

    def start_over(self) -> None:
        """Shows an empty conversation, whatever there was before. The choices above it stay."""
        self.errors.clear()
        if self.page.is_visible("#stop"):
            self.stop()
        if not self.page.is_visible("#intro"):
            self.clear()
        self.type("")

    def show(self, messages: list[dict[str, Any]]) -> None:
        """Imports a conversation and opens it in the page, which is not loaded anew."""
        self.page.evaluate(_IMPORT, {"messages": messages})

    def clear(self) -> None:
        """Deletes the conversation, and says yes when asked."""
        self.page.click("#clear")
        self.page.locator(".sure").get_by_text("Delete", exact=True).click()
        self.page.wait_for_selector("#intro", state="visible")

    def live(self) -> str:
        """The text of the growing reply, without its thinking and its tool calls."""
        return "\n".join(text.strip() for text in self.page.locator(LIVE_TEXT).all_text_contents()).strip()

    def texts(self, who: str) -> list[str]:
        """What is drawn of the ended conversation: "user" or "bot"."""
        return [t.strip() for t in self.page.locator(f"#chat [data-testid={who}]").all_text_contents()]

    def reply(self) -> str:
        """The text of the last reply, without its thinking and its tool calls."""
        return str(self.page.evaluate(_REPLY))

    def part(self, name: str, place: str = "#chat") -> Locator:
        """A thought or a tool call; `place` is `#live-reply` for those of a growing reply."""
        title = self.page.locator("summary b").get_by_text(name, exact=True)
        return self.page.locator(f"{place} .parts details").filter(has=title).last

    def bar(self, name: str) -> Locator:
        """The timeline's bar of a step; of several, the last."""
        button = self.page.locator("button").get_by_text(name, exact=True)
        return self.page.locator("#timeline .bars > li").filter(has=button).last

    def wait_toast(self, text: str) -> None:
        self.page.locator(".toast-wrap").get_by_text(text).first.wait_for(timeout=10_000)

    def report(self) -> str:
        """Tells what the page shows, and what it has exchanged with Gradio's queue, the latest first."""
        last = self.page.locator("#chat .message-row").last
        message = last.text_content(timeout=1000) if last.count() else ""
        panel = self.page.text_content("#agent-state .panel", timeout=1000)
        exchanged = self.page.evaluate("window.exchanged?.toReversed().join('\\n')")
        return f"{self.page.url}\n{self.phase}: {panel}\nThe last message: {message}\n{exchanged}"

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
def page(contexts: Contexts) -> Iterator[Page]:
    """An empty page of a new visitor."""
    with contexts.lend() as context:
        yield context.new_page()


@pytest.fixture
def open_chat(contexts: Contexts) -> Iterator[Callable[..., Chat]]:
    """Opens a page as a new visitor, or (`like`) as the visitor of another page. Options are those of a context."""
    with ExitStack() as stack:

        def open_one(url: str, like: Chat | None = None, width: int = 1280, scheme: Any = None, **options: Any) -> Chat:
            context = like.page.context if like else stack.enter_context(contexts.lend(**options))
            kept = not (like or scheme or width != DESKTOP["width"])
            page = context.pages[0] if kept else context.new_page()
            if not kept and not options:
                page.set_viewport_size({"width": width, "height": 800 if width > 1000 else 844})
                page.emulate_media(color_scheme=scheme)
            chat = Chat(page, url)
            stack.callback(chat.leave)
            return chat

        yield open_one


@pytest.fixture
def new_chat(app: RunningApp, open_chat: Callable[..., Chat]) -> Callable[..., Chat]:
    """As `open_chat`, by default at the app of the module."""
    return lambda url="", like=None, **options: open_chat(url or app.url, like, **options)


@pytest.fixture
def chat(new_chat: Callable[..., Chat]) -> Chat:
    return new_chat()


@pytest.fixture(scope="module")
def shared_chat(app: RunningApp, contexts: Contexts) -> Iterator[Chat]:
    """A page that the tests of a module use one after the other."""
    with contexts.visit(app.url) as chat:
        yield chat


@pytest.fixture
def reused_chat(shared_chat: Chat) -> Chat:
    """The page of the module with an empty conversation, for tests that are not about loading."""
    shared_chat.start_over()
    return shared_chat


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds what the test's pages show to the report of a failure."""
    report = yield
    if report.when == "call" and report.failed:
        for name, chat in getattr(item, "funcargs", {}).items():
            if isinstance(chat, Chat):
                with suppress(Error):
                    report.sections.append((f"page of {name}", chat.report()))
    return report
