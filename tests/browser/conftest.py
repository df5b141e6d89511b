"""The running app, as its own process with the real local model, in a real headless Chromium.

Playwright keeps an event loop running in this thread until it is closed, which pytest-asyncio would trip over: so these
fixtures end with this package, not with the session.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
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
_ENDED = "#agent-state :is([data-phase=complete], [data-phase=stopped], [data-phase=error])"


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
        context = (
            free.pop()
            if free
            else self._browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
        )
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
        self._listeners: list[tuple[Any, Callable[..., Any]]] = []
        page.set_default_timeout(30_000)
        self.on("pageerror", lambda error: self.errors.append(str(error)))
        self.open(url)

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
